"""Nodes without processes: the real client of a node, many times in one program.

Run by `benchmarks.many_nodes`: ``python -m benchmarks.simulated_nodes ADDRESS TOKEN FIRST COUNT
TOTAL``. It writes "ready", registers its nodes at the line "go" and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import sys
import uuid

from headrace.config import TimeoutConfig
from headrace.errors import HeadraceError
from headrace.framework.clock import SystemClock
from headrace.framework.jvm_lines import MasterAddress
from headrace.framework.machine.facts import ProcessState
from headrace.framework.messages import Beat, Directive, Register, StartProcess
from headrace.framework.node.attendance import Attendance

ROLE = "worker"


class SimulatedNode:
    """An attendant that does what it is told at once, and counts rows that do not exist.

    Thread model: one asyncio loop.
    """

    def __init__(self, index: int, parallelism: int) -> None:
        self._index = index
        self._parallelism = parallelism
        self._instance = uuid.uuid4().hex
        self._attempt = 1
        self._rows = 0
        self._process = ProcessState.NONE

    def registration(self) -> Register:
        """Return what a real node registers with."""
        is_running = self._process is ProcessState.RUNNING
        return Register(
            node=f"{ROLE}-{self._index}",
            instance=self._instance,
            attempt=self._attempt,
            role=ROLE,
            index=self._index,
            parallelism=self._parallelism,
            host=f"10.1.{self._index // 250}.{self._index % 250}",
            process=self._process,
            process_attempt=self._attempt if is_running else None,
        )

    def heartbeat(self) -> Beat:
        """Return a beat with values that change each time, as in a training job."""
        self._rows += 4096
        return Beat(
            node=f"{ROLE}-{self._index}",
            instance=self._instance,
            attempt=self._attempt,
            rows_in=self._rows,
            report={"loss": 1.0 / self._rows, "steps": self._rows / 64},
        )

    def on_attempt(self, attempt: int) -> None:
        """Follow the master."""
        self._attempt = attempt

    def on_directive(self, directive: Directive) -> None:
        """Pretend that the process runs."""
        if isinstance(directive, StartProcess):
            self._process = ProcessState.RUNNING

    def on_no_contact(self) -> None:
        """Do nothing: there is one master only."""

    def on_master_lost(self, error: HeadraceError) -> None:
        """Say so; the figures are void then."""
        print(f"lost: {error}", flush=True)


async def _run(address: str, token: str, first: int, count: int, total: int) -> None:
    loop = asyncio.get_running_loop()
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    master = MasterAddress(address=address, token=token, attempt=1)
    attendances = [
        Attendance(
            SimulatedNode(first + i, total), timeouts=TimeoutConfig(), clock=SystemClock()
        )
        for i in range(count)
    ]
    for attendance in attendances:
        attendance.connect(master)
    await loop.run_in_executor(None, sys.stdin.read)
    await asyncio.gather(*(attendance.close() for attendance in attendances))


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], sys.argv[2], *(int(each) for each in sys.argv[3:6])))
