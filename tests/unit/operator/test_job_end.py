"""When a job that Flink does not know has ended, and when it may only be taken over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from pyflink.common import JobClient

import headrace.operator.job_end
from headrace.operator.job_end import JobEnd


@dataclass
class Flink:
    """Its answers, and the clock; each request that is refused is another one."""

    now_s: float = 0.0
    is_known: bool = True
    requests: list[object] = field(default_factory=list)

    @property
    def _j_job_client(self) -> Flink:
        return self

    def get_job_id(self) -> str:
        return "job"

    def getJobExecutionResult(self) -> object:  # noqa: N802 - Flink's name
        self.requests.append(object())
        return self.requests[-1]

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def flink(monkeypatch: pytest.MonkeyPatch) -> Flink:
    found = Flink()
    module = headrace.operator.job_end
    monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(module, "has_ended", lambda j_future, pause_ms: not found.is_known)
    monkeypatch.setattr(module, "_loss", lambda j_future: "404")
    monkeypatch.setattr(module, "is_of_unknown_job", lambda loss: loss == "404")
    return found


def look(end: JobEnd, flink: Flink, at_s: float, *, is_known: bool) -> bool:
    flink.now_s, flink.is_known = at_s, is_known
    return end.is_told(0)


def test_a_job_that_stays_unknown_has_ended_and_one_that_is_known_again_has_not(
    flink: Flink,
) -> None:
    end = JobEnd(cast("JobClient", cast("Any", flink)), job_name="lost", am_uid="am")
    assert not look(end, flink, 0.0, is_known=False)
    assert not look(end, flink, 9.0, is_known=False), "a JobManager may be taking over"
    assert not look(end, flink, 9.5, is_known=True)
    assert not look(end, flink, 3_600.0, is_known=True)
    assert not look(end, flink, 3_601.0, is_known=False), "another one, an hour later"
    asked = len(flink.requests)
    assert look(end, flink, 3_612.0, is_known=False)
    assert look(end, flink, 3_613.0, is_known=False)
    assert len(flink.requests) == asked + 1, "what was told stays told"
