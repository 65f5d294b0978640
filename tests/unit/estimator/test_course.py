"""When a training stops, which epoch is the best, and what the history says of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.errors import ConfigError, DataError
from headrace.estimator import Course, EarlyStopping, History, Sums

NAN = math.nan


def run(
    losses: list[float], *, name: str = "loss", **stopping: Any
) -> tuple[list[bool], int, int | None]:
    """Which epochs are kept, how many are trained, and which is the best."""
    course = Course(EarlyStopping(monitor=name, **stopping), has_held_out=True)
    kept = []
    for loss in losses:
        verdict = course.end_epoch({"rows": 9.0, "val_rows": 3.0, f"val_{name}": loss})
        kept.append(verdict.is_best)
        if verdict.is_last:
            break
    return kept, course.history.epochs, course.history.best_epoch


@pytest.mark.parametrize(
    ("losses", "stopping", "epochs", "best"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, 5, 4),
        ([5, 4, 4, 4, 1], {"patience": 2}, 4, 1),
        ([5, 4, 4, 3, 3, 3, 0], {"patience": 2}, 6, 3),
        ([5, 4.5, 4.2, 4.1], {"patience": 2, "min_delta": 1.0}, 3, 0),
        ([5, 4.5, 4.2, 4.15, 1], {"patience": 2, "min_delta": 0.4}, 4, 1),
        ([1, 2, 3, 3], {"patience": 1, "mode": "max"}, 4, 2),
        ([NAN, NAN, 1.0], {"patience": 2, "name": "mae"}, 2, None),
        ([NAN, 2.0, NAN, 1.0], {"patience": 2, "name": "mae"}, 4, 3),
    ],
)
def test_a_training_stops_when_nothing_has_become_better_for_long_enough(
    losses: list[float], stopping: dict[str, Any], epochs: int, best: int | None
) -> None:
    assert run(losses, **stopping)[1:] == (epochs, best)


def test_the_model_is_kept_at_each_better_epoch_unless_that_is_not_wished() -> None:
    losses = [5.0, 4.0, 6.0, 3.0]
    assert run(losses)[0] == [True, True, False, True]
    assert run(losses, restore_best=False) == ([False] * 4, 4, 3)
    assert run(losses, name="mae")[0] == [True, True, False, True]


def test_tables_without_rows_are_errors_that_say_which() -> None:
    course = Course(None, has_held_out=False)
    with pytest.raises(DataError, match=r"^The table had no rows: nothing was trained"):
        course.end_epoch({"learning_rate": 0.1})
    course = Course(None, has_held_out=True)
    with pytest.raises(DataError, match=r"validation table had no rows"):
        course.end_epoch({"rows": 4.0, "loss": 1.0})


@pytest.mark.parametrize("name", ["loss", "val_loss"])
@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_model_whose_loss_is_no_number_is_no_success(name: str, value: float) -> None:
    course = Course(None, has_held_out=True)
    good = {"rows": 9.0, "val_rows": 3.0, "loss": 1.0, "val_loss": 1.0}
    course.end_epoch(good)
    with pytest.raises(DataError, match=rf"The {name} is {value} in epoch 1 \(from 0\)"):
        course.end_epoch({**good, name: value})


def test_the_history_has_the_values_of_each_epoch_and_survives_as_text() -> None:
    course = Course(None, has_held_out=False)
    for loss in (2.0, 1.0):
        assert not course.end_epoch({"loss": loss, "rows": 4.0}).is_last
    history = History.from_json(course.history.to_json())
    assert dict(history) == {"loss": (2.0, 1.0), "rows": (4.0, 4.0)}
    assert (history.epochs, history.best_epoch) == (2, None)
    with pytest.raises(KeyError):
        history["val_loss"]
    assert dict(History()) == {}


def test_sums_of_several_workers_give_means_over_all_rows() -> None:
    first, second, idle = Sums(["loss", "mae"]), Sums(["loss", "mae"]), Sums(["loss", "mae"])
    first.add(3, {"loss": 1.0, "mae": 2.0})
    first.add(1, {"loss": 5.0, "mae": 2.0})
    second.add(4, {"loss": 4.0, "mae": 8.0})
    lists = [each.to_list() for each in (first, second, idle)]
    totals = [sum(each) for each in zip(*lists, strict=True)]
    assert idle.means_of(totals, "val_") == {"val_loss": 3.0, "val_mae": 5.0, "val_rows": 8.0}
    assert idle.means_of(idle.to_list()) == {}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patience": 0}, r"patience=0 must be a whole number of at least 1"),
        ({"min_delta": -1.0}, r"min_delta=-1.0\) must be at least 0"),
        ({"min_delta": NAN}, r"min_delta=nan\) must be at least 0"),
        ({"mode": "best"}, r"mode='best'\) must be 'min' or 'max'"),
    ],
)
def test_early_stopping_refuses_what_cannot_work(settings: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        EarlyStopping(**settings)


def test_a_value_that_nobody_computes_cannot_be_monitored() -> None:
    EarlyStopping(monitor="mae").require_known(["loss", "mae"])
    with pytest.raises(ConfigError, match=r"monitor='mse'\) is none of .*: loss, mae"):
        EarlyStopping(monitor="mse").require_known(["loss", "mae"])
