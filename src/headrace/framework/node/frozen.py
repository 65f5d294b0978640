"""When an algorithm process counts as frozen (ADR 0128). Linux only."""

from __future__ import annotations

import asyncio
from pathlib import Path

__all__ = ["frozen_text", "wait_until_frozen"]

_PROC = Path("/proc")
_SWITCHES = (b"voluntary_ctxt_switches", b"nonvoluntary_ctxt_switches")


async def wait_until_frozen(pid: int, *, every_s: float, limit_s: float) -> float:
    """Return once a process has been stopped for `limit_s` seconds and has not run meanwhile.

    Does not end by itself before, nor if the process ends: cancel it then.

    A process that computes, waits, holds the interpreter's lock or gets no core is not stopped.
    One that somebody stops and lets go on in turns runs in between; one that a debugger holds
    has an owner. What counts is the number of looks: while nobody looks, since the looking
    process was frozen as well or got no core, no time is counted.

    Args:
        pid: The process, not reaped yet.
        every_s: Pause between two looks, in seconds.
        limit_s: How long it may be stopped, in seconds.

    Returns:
        How long it was seen to be stopped, in seconds.
    """
    last: tuple[bytes | None, ...] | None = None
    stopped_s = 0.0
    while True:
        stop = _stop_of(pid)
        stopped_s = stopped_s + every_s if stop is not None and stop == last else 0.0
        if stopped_s >= limit_s:
            return stopped_s
        last = stop
        await asyncio.sleep(every_s)


def frozen_text(stopped_s: float, limit_s: float) -> str:
    """Return why a process was killed that was stopped for `stopped_s` seconds."""
    return (
        f"The process was frozen: something has stopped it (SIGSTOP), and it has not run for "
        f"{stopped_s:.1f} s (limit {limit_s:.1f} s, set by `timeouts.heartbeat_timeout_s`). "
        "Others may wait for it without end, so its node has killed it, and it counts as lost. "
        "Find out who sends SIGSTOP; if it has to stand still for so long, raise the setting."
    )


def _stop_of(pid: int) -> tuple[bytes | None, ...] | None:
    """Return what tells this stop of a process from the next one; None if it is not stopped."""
    try:
        status = (_PROC / str(pid) / "status").read_bytes()
    except OSError:
        return None
    facts = dict(line.partition(b":")[::2] for line in status.splitlines())
    if not facts.get(b"State", b"").strip().startswith(b"T"):  # "t": traced, by a debugger
        return None
    return tuple(facts.get(name) for name in _SWITCHES)  # to go on is to be switched to
