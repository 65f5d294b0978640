"""What a failed job leaves in its directory for checkpoints, and how another one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.waiting import until

from .conftest import MakeEnvironment
from .kept_state import Killer, count_rows, expected_counts
from .test_kept_state import LIMIT_S, NARROW, counted, in_dir, report_of, submit
from .test_operator_rows import CHECKPOINTS

ROWS = 6_000


def test_a_job_whose_restarts_have_run_out_leaves_its_last_checkpoint_and_another_goes_on(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    checkpoints, out = tmp_path / "cp", tmp_path / "out"

    def start(killer: Killer | None = None, **options: str) -> JobHandle:
        t_env = make_t_env(
            **CHECKPOINTS,
            **NARROW,
            **in_dir(checkpoints),
            restart__strategy_type="none",
            **options,
        )
        return submit(t_env, count_rows(killer), rows=ROWS, per_second=1_000, out=out)

    failed = start(Killer(tmp_path, checkpoints, 1))
    with pytest.raises(JobFailedError, match=r"SIGKILL") as caught:
        failed.wait(timeout_s=LIMIT_S, show_progress=False)
    (kept,) = kept_by(failed, checkpoints)
    place = f"{checkpoints.as_uri()}/{failed.job_id}/{kept.name}"
    assert f"`execution.state-recovery.path` set to {place}." in caught.value.advice
    assert str(caught.value).endswith(caught.value.advice)

    cancelled = start(execution_state__recovery_path=place)
    until(lambda: bool(kept_by(cancelled, checkpoints)), "a checkpoint", LIMIT_S)
    cancelled.cancel()
    with pytest.raises(JobFailedError, match=r"cancel") as caught:
        cancelled.wait(timeout_s=LIMIT_S, show_progress=False)
    assert caught.value.advice == ""
    until(lambda: not kept_by(cancelled, checkpoints), "end of what was cancelled")

    second = start(execution_state__recovery_path=place)
    assert report_of(second)["count"] == ROWS
    assert counted(out) == expected_counts(ROWS)
    assert not kept_by(second, checkpoints)
    assert kept_by(failed, checkpoints) == [kept]


def kept_by(job: JobHandle, checkpoints: Path) -> list[Path]:
    """The complete checkpoints of a job."""
    return [each.parent for each in (checkpoints / job.job_id).glob("chk-*/_metadata")]
