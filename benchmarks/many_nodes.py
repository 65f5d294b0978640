"""A real master process with 1, 100 and 1,000 simulated nodes over real gRPC.

The nodes are the real client code of a node (`Attendance`), some hundred of them in each of a
few processes, which share the machine with the master. Taken per cluster size: seconds from the
start of all registrations until the master says that it runs; its processor time over a
quiet stretch afterwards, as a share of one core, with a beat of every node in it; its resident
size; and the bytes of each kind of message.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue
from typing import IO, Any

import msgspec

from benchmarks import report
from benchmarks.processes import cpu_s, resident_mb
from benchmarks.simulated_nodes import ROLE, SimulatedNode
from headrace.config import TimeoutConfig
from headrace.framework import MasterSpec, PlannedRole, encode_spec
from headrace.framework.messages import Attend, RegisterReply, StartProcess

_TOKEN = "simulated"  # noqa: S105 - of this run only
_PER_PROCESS = 250
_GATHER_LIMIT_S = 60.0


def run_many_nodes(sizes: list[int], repeats: int, quiet_s: float) -> dict[str, Any]:
    """Measure each cluster size; return figures and bars."""
    figures: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for repeat in range(repeats):
        for size in sizes:
            figures[size].append(_measure(size, quiet_s))
            print(f"{size} nodes, repeat {repeat}: {figures[size][-1]}", flush=True)
    most = max(sizes)
    spreads = {
        size: {key: report.spread([each[key] for each in taken]) for key in taken[0]}
        for size, taken in figures.items()
    }
    return {
        "repeats": repeats,
        "quiet_s": quiet_s,
        "nodes": {
            str(size): {**spreads[size], "message_bytes": message_bytes(size)} for size in sizes
        },
        "bars": {
            f"{most} nodes: seconds until all are registered": report.at_most(
                spreads[most]["registered_s"]["median"], 5.0
            ),
            f"{most} nodes: share of a core afterwards": report.at_most(
                spreads[most]["core_share"]["median"], 0.1
            ),
        },
    }


def message_bytes(nodes: int) -> dict[str, int]:
    """Return the size of each message in a cluster of `nodes`: its JSON, without gRPC's frame.

    `start` goes to every node when the group starts; the others do not depend on the cluster.
    """
    node = SimulatedNode(nodes - 1, nodes)
    registration, beat = node.registration(), node.heartbeat()
    attend = Attend(
        node=registration.node, instance=registration.instance, attempt=registration.attempt
    )
    hosts = tuple(SimulatedNode(i, nodes).registration().host for i in range(nodes))
    messages = {
        "register": registration,
        "register_reply": RegisterReply(attempt=1, heartbeat_every_s=2.5),
        "attend": attend,
        "beat": beat,
        "start": StartProcess(attempt=1, cluster={ROLE: hosts}),
    }
    return {name: len(msgspec.json.encode(message)) for name, message in messages.items()}


def _measure(nodes: int, quiet_s: float) -> dict[str, float]:
    with ExitStack() as opened:
        folder = Path(
            opened.enter_context(tempfile.TemporaryDirectory(prefix="headrace-many-"))
        )
        master, lines = opened.enter_context(_master(folder, nodes))
        address = _next(lines, lambda line: line["type"] == "listening")["address"]
        programs = []
        for first in range(0, nodes, _PER_PROCESS):
            count = min(_PER_PROCESS, nodes - first)
            programs.append(
                opened.enter_context(_simulation(address, first, count, nodes, folder))
            )
        begin = time.monotonic()
        for program in programs:
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
        _next(lines, lambda line: line.get("status", {}).get("state") == "RUNNING")
        registered_s = time.monotonic() - begin
        pause = threading.Event()
        pause.wait(min(2.0, quiet_s))  # until the directives are out
        cpu_begin, begin = cpu_s(master.pid), time.monotonic()
        pause.wait(quiet_s)
        share = (cpu_s(master.pid) - cpu_begin) / (time.monotonic() - begin)
        status = _latest(lines)
        if status is not None:  # it would recover if a node were lost
            assert (status["state"], status["registered"]) == ("RUNNING", nodes), status[
                "state"
            ]
        return {
            "registered_s": registered_s,
            "core_share": share,
            "resident_mb": resident_mb(master.pid),
        }


@contextmanager
def _master(folder: Path, nodes: int) -> Iterator[tuple[Any, Queue[dict[str, Any]]]]:
    """A master process that expects `nodes` workers, and its lines."""
    spec = MasterSpec(
        job_name="many",
        roles={ROLE: PlannedRole(planned_parallelism=nodes)},
        timeouts=TimeoutConfig(),
    )
    spec_path = folder / "spec.json"
    spec_path.write_bytes(encode_spec(spec))
    start = {
        "type": "start",
        "job_id": "0" * 32,
        "job_name": "many",
        "role": "am",
        "index": 0,
        "parallelism": 1,
        "host": "127.0.0.1",
        "work_dir": str(folder),
        "spec_path": str(spec_path),
        "token": _TOKEN,
    }
    with (folder / "master.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.framework.master"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    lines: Queue[dict[str, Any]] = Queue()
    assert process.stdin is not None
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines))
    reader.start()
    process.stdin.write(json.dumps(start) + "\n")
    process.stdin.flush()
    try:
        yield process, lines
    finally:
        _end(process)
        reader.join()
        process.stdout.close()


@contextmanager
def _simulation(
    address: str, first: int, count: int, total: int, folder: Path
) -> Iterator[Any]:
    """A program with `count` nodes that waits for "go"."""
    numbers = [str(each) for each in (first, count, total)]
    with (folder / f"nodes-{first}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.simulated_nodes", address, _TOKEN, *numbers],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert process.stdout is not None
    try:
        ready = process.stdout.readline()
        assert ready == "ready\n", ready
        yield process
    finally:
        _end(process)
        process.stdout.close()


def _end(process: subprocess.Popen[str]) -> None:
    """Both kinds of program end with their stdin."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _read(stdout: IO[str], lines: Queue[dict[str, Any]]) -> None:
    for line in stdout:
        lines.put(json.loads(line))


def _next(lines: Queue[dict[str, Any]], is_wanted: Any) -> dict[str, Any]:
    deadline = time.monotonic() + _GATHER_LIMIT_S
    while True:
        line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        assert line["type"] != "fail", line
        if is_wanted(line):
            return line


def _latest(lines: Queue[dict[str, Any]]) -> dict[str, Any] | None:
    status = None
    while not lines.empty():
        status = lines.get().get("status", status)
    return status


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("many_nodes", arguments)
    if options.smoke:
        figures = run_many_nodes([1, 30], repeats=1, quiet_s=0.5)
    else:
        figures = run_many_nodes([1, 100, 1000], repeats=3, quiet_s=10.0)
    print(report.write_result("many_nodes", figures, options.results).read_text())


if __name__ == "__main__":
    main()
