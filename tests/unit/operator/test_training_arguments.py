"""`train` of a framework, which has the documentation, and `training_job`, which SQL calls."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import headrace.pytorch.job
import headrace.tensorflow.job
from headrace.errors import PlanError

TABLES = {"rows", "held_out", "output"}  # only where there is a table program
TOLD = {"is_stream", "has_held_out"}  # what the job must know of them

both = pytest.mark.parametrize("job", [headrace.pytorch.job, headrace.tensorflow.job])


def parameters(function: Any, without: set[str]) -> dict[str, tuple[Any, Any]]:
    found = inspect.signature(function).parameters
    return {
        name: (each.default, each.annotation)
        for name, each in found.items()
        if name not in without
    }


@both
def test_both_take_the_same_with_the_same_defaults(job: ModuleType) -> None:
    assert parameters(job.train, TABLES) == parameters(job.training_job, TOLD)


@both
def test_train_hands_on_everything_that_it_is_given(
    job: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TakenError(Exception):
        pass

    def take(entry: object, **settings: object) -> None:
        raise TakenError(entry, settings)

    told = dict.fromkeys(TOLD & {*parameters(job.training_job, set())}, False)
    monkeypatch.setattr(job, "training_job", take)
    given = {name: object() for name in parameters(job.train, {*TABLES, "entry"})}
    entry = object()
    with pytest.raises(TakenError) as caught:
        job.train(None, entry, **given)
    assert caught.value.args == (entry, {**given, **told})


@both
@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"epochs": 2}, "epochs=2"),
        ({"held_out": "a table"}, "held_out"),
        ({"epochs": 3, "held_out": "a table"}, "epochs=3 and held_out"),
    ],
)
def test_a_number_of_workers_that_may_change_keeps_no_rows(
    job: ModuleType, more: dict[str, Any], named: str
) -> None:
    with pytest.raises(PlanError, match=rf"^workers=\(1, 3\) with {named}: .* workers=3"):
        job.train("a table", print, workers=(1, 3), **more)
