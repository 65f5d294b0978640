"""A scripted master: see the package."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from .lines import heard, pause, say, started


def run(start: dict[str, Any], spec: dict[str, Any]) -> None:
    folder = Path(spec["dir"])
    pause(spec.get("listen_after_s", 0))
    say("listening", address=f"localhost:{os.getpid()}")
    _say_state("GATHERING", start, spec.get("gathers"))
    if "gathers" in spec:
        return
    _say_state("RUNNING", start)
    deaths = len(list(folder.glob("death-*")))
    if deaths < spec.get("dies", 0):
        (folder / f"death-{deaths}").touch()
        while not list(folder.glob(f"control-*-{os.getpid()}")):
            pause(0.01)
        sys.stderr.write("the master is about to die\n")
        os.kill(os.getpid(), signal.SIGKILL)
    if "fails" in spec:
        say("fail", message=spec["fails"], is_restartable=not spec.get("is_fatal", False))
        return
    while len(list(folder.glob("ended-*"))) < spec["ends"]:
        pause(0.01)
    _say_state("FINISHED", start)
    say("finish", reason="the script is over")


def _say_state(state: str, start: dict[str, Any], more: dict[str, Any] | None = None) -> None:
    say(
        "status",
        status={
            "state": state,
            "attempt": start["attempt"],
            "restarts": 0,
            "registered": 0,
            "expected": None,
            "reason": None,
            "nodes": {},
            **(more or {}),
        },
    )


if __name__ == "__main__":
    threading.Thread(target=run, args=started(), daemon=True).start()
    for line in heard():
        if line["type"] == "stop":
            break
