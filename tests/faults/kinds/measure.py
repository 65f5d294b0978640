"""Strikes of several kinds, one after the other, and the seconds that each has cost."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.report import at_least, percentiles
from tests.faults.chaos.jobs import OPTIONS, SPARE_AFTER_S
from tests.faults.kinds.kinds import CUT, OUT_OF_MEMORY, Kind
from tests.faults.kinds.stage import (
    HEARTBEAT_INTERVAL_S,
    HEARTBEAT_TIMEOUT_S,
    WORKERS,
    Stage,
    open_host,
    open_hosts,
)
from tests.faults.kinds.trial import Trial, open_flink_alone, open_training
from tests.flink.hosts import obstacle
from tests.flink.jvm import compile_less
from tests.flink.programs.keep import HEARTBEAT_EVERY_S
from tests.flink.zookeeper import SESSION_S
from tests.memory_group import NoMemoryGroupError, memory_group

__all__ = ["measure_kinds", "say"]

_BEGAN_S = time.monotonic()
_SETTINGS = {
    "flink_heartbeat_interval_s": HEARTBEAT_INTERVAL_S,
    "flink_heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S,
    "heartbeat_every_s": HEARTBEAT_EVERY_S,
    "heartbeat_timeout_s": HEARTBEAT_TIMEOUT_S,
    "zookeeper_session_timeout_s": float(SESSION_S),
    "restart_delay_s": int(OPTIONS["restart-strategy.fixed-delay.delay"].split()[0]) / 1000,
    "checkpoint_interval_s": int(OPTIONS["execution.checkpointing.interval"].split()[0]) / 1000,
    "spare_after_s": SPARE_AFTER_S,
}


class _Seconds:
    """What was measured, by kind."""

    def __init__(self) -> None:
        self.back: dict[str, list[float]] = defaultdict(list)
        self.source: dict[str, list[float]] = defaultdict(list)
        self.alone: dict[str, list[float]] = defaultdict(list)

    def of(self, kind: Kind) -> dict[str, Any]:
        found: dict[str, Any] = {
            "recovery_s": percentiles(self.back[kind.name]),
            "source_runs_s": percentiles(self.source[kind.name]),
        }
        if self.alone[kind.name]:
            found["flink_alone_s"] = percentiles(self.alone[kind.name])
        return {**found, "bounded_by": list(kind.bounds)}


def measure_kinds(
    kinds: Sequence[Kind], chance: random.Random, repeats: int | None = None
) -> dict[str, Any]:
    """Strike; return the spread of the recovery times by kind, and the bar.

    Args:
        kinds: Which; those that this machine does not allow are left out, with the reason.
        chance: What decides on victims and moments.
        repeats: Strikes of each kind; None: as many as a whole run has.

    Raises:
        AssertionError: A result was not exact, or something was left.
    """
    compile_less()
    seconds = _Seconds()
    with _possible(kinds) as (left_out, group):
        those = [kind for kind in kinds if kind.name not in left_out]
        for open_stage, needs_hosts in ((open_host, False), (open_hosts, True)):
            here = [kind for kind in those if kind.needs_hosts == needs_hosts]
            if here:
                _measure_on(open_stage, here, seconds, chance, group, repeats)
    strikes = sum(map(len, seconds.back.values()))
    return {
        "workers": WORKERS,
        "strikes": strikes,
        "settings": _SETTINGS,
        "kinds": {kind.name: seconds.of(kind) for kind in those},
        "left_out": left_out,
        "bars": {
            "strikes that a training recovered from, with an exact result": at_least(
                strikes, sum(repeats or kind.repeats for kind in those)
            )
        },
    }


@contextmanager
def _possible(kinds: Sequence[Kind]) -> Iterator[tuple[dict[str, str], Path | None]]:
    """Give the kinds that are not possible here, with the reason, and the control group."""
    left_out: dict[str, str] = {}
    group = None
    with ExitStack() as stack:
        if OUT_OF_MEMORY in kinds:
            try:
                group = stack.enter_context(memory_group("kinds"))
            except NoMemoryGroupError as exc:
                left_out[OUT_OF_MEMORY.name] = str(exc)
        if CUT in kinds and (reason := obstacle()):
            left_out[CUT.name] = reason
        for name, reason in left_out.items():
            say(f"left out: {name}: {reason}")
        yield left_out, group


def _measure_on(
    open_stage: Callable[[Path], AbstractContextManager[Stage]],
    kinds: Sequence[Kind],
    seconds: _Seconds,
    chance: random.Random,
    group: Path | None,
    repeats: int | None,
) -> None:
    counts = {kind: repeats or kind.repeats for kind in kinds}
    peers = {kind: repeats or kind.peer_repeats for kind in kinds if kind.peer_repeats}
    with tempfile.TemporaryDirectory(prefix="kinds-") as name, open_stage(Path(name)) as stage:
        with open_training(stage, sum(counts.values()), chance, group) as training:
            for kind, back_s, source_s in _struck(training, counts):
                say(f"{kind.name}: {back_s:.2f} s, its source {source_s:.2f} s")
                seconds.back[kind.name].append(back_s)
                seconds.source[kind.name].append(source_s)
        say("the training has ended well: exact, and nothing is left")
        if peers:
            with open_flink_alone(stage, sum(peers.values()), chance) as alone:
                for kind, back_s, _ in _struck(alone, peers):
                    say(f"{kind.name}: Flink alone {back_s:.2f} s")
                    seconds.alone[kind.name].append(back_s)


def _struck(trial: Trial, counts: dict[Kind, int]) -> Iterator[tuple[Kind, float, float]]:
    """Strike; give the kind, and the seconds until the job and its source were back."""
    for kind, count in counts.items():
        for _ in range(count):
            trial.settle()
            strike = kind.strike(trial)
            back_s, source_s = trial.await_back(strike.at_s)
            yield kind, back_s - strike.at_s, source_s - strike.at_s
            strike.mend()


def say(text: str) -> None:
    """Tell at once, with the seconds so far."""
    sys.stdout.write(f"{time.monotonic() - _BEGAN_S:6.1f} s: {text}\n")
    sys.stdout.flush()
