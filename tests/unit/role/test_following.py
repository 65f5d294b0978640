"""What is saved comes to who follows it, also from other processes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.config import RoleConfig
from headrace.errors import UsageError
from headrace.framework.stopping import StopRequestedExit
from headrace.role import RoleContext
from headrace.role.saved import list_saved, new_saved
from headrace.testing import run
from tests.unit.role.doubles import FakeLink, spec_in


def save(directory: Path, step: int, attempt: int = 1, **settings: Any) -> None:
    with new_saved(directory, step, attempt, node="worker-0", **settings) as path:
        path.write_text(f"{step} of {attempt}")


def save_directory(directory: Path, text: str) -> Path:
    with new_saved(directory, 1, 1, node="worker-0") as path:
        path.mkdir()
        (path / "weights").write_text(text)
    return directory


def context_in(directory: Path, **changes: Any) -> RoleContext:
    changes = {"attempt": 2, "checkpoint_dir": str(directory), **changes}
    return RoleContext(spec=spec_in(directory, **changes), link=FakeLink())


def test_the_newest_of_what_has_appeared_comes_and_no_older_one_after_it(
    tmp_path: Path,
) -> None:
    for step, attempt in ((8, 1), (9, 1), (1, 2)):
        save(tmp_path, step, attempt)
    found = context_in(tmp_path).follow_checkpoints(timeout_s=0.0)
    told = []
    for step, path in found:
        told.append((step, path.read_text()))
        if len(told) == 1:
            save(tmp_path, 2, 2)
            save(tmp_path, 3, 2)
    assert told == [(1, "1 of 2"), (3, "3 of 2")]


def test_a_new_job_is_followed_in_a_directory_with_files_of_later_attempts(
    tmp_path: Path,
) -> None:
    save(tmp_path, 70, attempt=5)
    steps = []
    for step, _ in context_in(tmp_path, attempt=1).follow_checkpoints(timeout_s=0.0):
        steps.append(step)
        if step < 3 or step == 70:
            save(tmp_path, step % 70 + 1, attempt=1)
    assert steps == [70, 1, 2, 3]


def test_one_that_is_saved_again_while_it_is_read_comes_once(tmp_path: Path) -> None:
    save(tmp_path, 1)
    steps = []
    for step, path in context_in(tmp_path).follow_checkpoints(timeout_s=0.0):
        steps.append(step)
        path.unlink()
        save(tmp_path, 1)
    assert steps == [1]


def test_a_directory_that_is_saved_again_comes_under_its_new_path(tmp_path: Path) -> None:
    told = []
    for save_number, (step, path) in enumerate(
        context_in(save_directory(tmp_path, "first")).follow_checkpoints(timeout_s=0.0)
    ):
        if save_number == 0:
            save_directory(tmp_path, "second")
            assert not path.exists()
        else:
            told.append((step, (path / "weights").read_text()))
    assert told == [(1, "second")]


def test_the_iteration_ends_at_its_limit_and_reports_meanwhile(tmp_path: Path) -> None:
    context = context_in(tmp_path / "not-there-yet")
    link: Any = context._link
    (tmp_path / "not-there-yet").mkdir()
    shutil.rmtree(tmp_path / "not-there-yet")
    context.report(a=1)
    context.report(a=2)  # held back by the rate
    assert list(context.follow_checkpoints(timeout_s=0.8)) == []
    assert link.reports[-1][0] == {"a": 2.0}


def test_without_a_checkpoint_directory_there_is_nothing_to_follow(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint directory"):
        context_in(tmp_path, checkpoint_dir=None).follow_checkpoints()


@pytest.mark.timeout(90)
def test_an_evaluator_waits_for_what_a_worker_saves_until_it_is_stopped(tmp_path: Path) -> None:
    def train(ctx: Any) -> None:
        for step in (1, 2, 3):
            with ctx.checkpoint_path(step, keep=2) as path:
                path.mkdir()
                (path / "weights").write_text(f"weights {step}")
            assert ctx.lookup(f"evaluated-{step}", 30.0) == f"weights {step}"

    def evaluate(ctx: Any) -> None:
        try:
            for step, path in ctx.follow_checkpoints():
                ctx.report(step=step)
                ctx.publish(f"evaluated-{step}", (path / "weights").read_text())
        except StopRequestedExit:
            ctx.report(was_stopped=1)
            raise

    result = run(
        train,
        others={"evaluator": RoleConfig(entry=evaluate)},
        checkpoint_dir=tmp_path,
        timeout_s=80.0,
    )
    (evaluator,) = result.others["evaluator"]
    assert [*evaluator.history] == [{"step": 1}, {"step": 2}, {"step": 3}, {"was_stopped": 1}]
    assert [each.step for each in list_saved(tmp_path)] == [2, 3]
