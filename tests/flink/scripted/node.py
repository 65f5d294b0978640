"""A scripted node: starts the scripted process once it knows the master; see the package."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .lines import heard, pause, say, started


class Node:
    def __init__(self, start: dict[str, Any], spec: dict[str, Any]) -> None:
        self.start = start
        self.spec = spec
        self.folder = Path(spec["dir"])
        self.name = f"{start['role']}-{start['index']}"
        self.process: subprocess.Popen[bytes] | None = None

    def on_master(self, line: dict[str, Any]) -> None:
        number = line["address"].partition(":")[2]
        with (self.folder / f"heard-{self.name}").open("a") as heard_masters:
            heard_masters.write(f"{number}\n")
        (self.folder / f"control-{self.name}-{number}").write_text(json.dumps(line))
        if self.process is None:
            self.run_process()

    def run_process(self) -> None:
        module = "scripted.process" if self.start["queue_socket"] else "scripted.sleeper"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                module,
                str(self.start["queue_socket"]),
                json.dumps(self.spec),
            ],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=2,
        )
        (self.folder / f"pid-{self.name}").write_text(str(self.process.pid))
        if "reports" in self.spec:
            say("report", values=self.spec["reports"])
        say("process_started", pid=self.process.pid, attempt=1)
        if self.spec.get("asks"):
            threading.Thread(target=self._ask, daemon=True).start()
        threading.Thread(target=self._await_process, daemon=True).start()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _ask(self) -> None:
        while not (self.folder / "go-on").exists():
            say("master_unreachable")
            pause(0.005)

    def _await_process(self) -> None:
        assert self.process is not None
        code = self.process.wait()
        outcome = "finished" if code == 0 else "failed"
        failure = None if code == 0 else {"message": f"exit code {code}"}
        text = None if code == 0 else f"{self.name}: exit code {code}\nTraceback of the script"
        say("process_ended", attempt=1, outcome=outcome, failure=failure, text=text)
        if code == 0:
            (self.folder / f"ended-{self.name}").touch()


def main() -> None:
    node = Node(*started())
    if node.spec.get("ignores_stop"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if node.start.get("master", "unknown") is None:
        node.run_process()
    for line in heard():
        if line["type"] == "master":
            node.on_master(line)
        elif node.spec.get("ignores_stop"):
            pause(1000)
        else:
            break
    node.stop()
    os._exit(0)


if __name__ == "__main__":
    main()
