"""A job that cannot be drained is cancelled, until Flink has done it."""

from __future__ import annotations

from dataclasses import dataclass, field
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
