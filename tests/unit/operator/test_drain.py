"""A job that cannot be drained is cancelled, until Flink has done it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import headrace.operator.drain
from headrace.operator.drain import Drain


class NoPlace:
    """A cluster that is elsewhere, and has no directory for savepoints."""

    is_embedded = False

    def option(self, key: str) -> None:
        """Nothing is set."""


@dataclass
class Job:
    """Flink's client; `is_done` says whether its cancels have been answered."""

    is_done: bool = False
    state: str | None = "RUNNING"
    cancels: list[Job] = field(default_factory=list)

    def cancel(self) -> Job:
        self.cancels.append(self)
        return self

    def done(self) -> bool:
        return self.is_done


def test_a_cancel_that_flink_did_not_carry_out_is_given_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nowhere: Any = NoPlace()
    job = Job()
    monkeypatch.setattr(headrace.operator.drain, "state_of", lambda client: client.state)
    monkeypatch.setattr(Drain, "_is_needed", lambda *_: True)
    drain = Drain(nowhere, "endless")

    def cancels_behind(*, is_done: bool, state: str | None) -> int:
        job.is_done, job.state = is_done, state
        client: Any = job
        drain.start_if_needed(client, "am")
        return len(job.cancels)

    assert cancels_behind(is_done=False, state="RUNNING") == 1
    assert cancels_behind(is_done=False, state="RUNNING") == 1, "not answered yet"
    assert cancels_behind(is_done=True, state="CANCELLING") == 1
    assert cancels_behind(is_done=True, state=None) == 1, "nobody tells now"
    assert cancels_behind(is_done=True, state="RUNNING") == 2


def test_while_a_drain_waits_for_its_savepoint_the_job_is_told_once_a_minute_not_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = headrace.operator.drain
    nowhere, client = NoPlace(), SimpleNamespace(_j_job_client=None)
    clock = iter([1000.0, 1030.0, 1060.0, 1060.0, 1061.0, 1119.0, 1120.5, 1120.5])
    asked: list[str] = []

    def is_needed(*facts: Any) -> bool:
        asked.append(facts[-1])
        return True

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(module, "has_ended", lambda *_: False)
    monkeypatch.setattr(
        module, "SavepointStop", lambda *_, **facts: SimpleNamespace(j_future=None, **facts)
    )
    monkeypatch.setattr(nowhere, "option", lambda _: "file:///savepoints")
    monkeypatch.setattr(Drain, "_is_needed", is_needed)
    facts: Any = (nowhere, "endless", client)
    drain = Drain(*facts[:2])
    counts = []
    for _ in range(6):  # the clock is read twice where it is time
        drain.start_if_needed(facts[2], "am")
        counts.append(len(asked))
    assert counts == [1, 1, 2, 2, 2, 3]
