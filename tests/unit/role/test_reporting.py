"""Reports: the latest values, at a bearable rate, and none lost at the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace.errors import DataError
from headrace.role.reporting import Reporter
from tests.unit.role.doubles import FakeClock, FakeLink


class Setup:
    def __init__(self) -> None:
        self.link = FakeLink()
        self.clock = FakeClock()
        self.counts = (0, 0)
        self.reporter = Reporter(self.link, lambda: self.counts, self.clock)


@pytest.fixture
def setup() -> Setup:
    return Setup()


def test_the_first_report_leaves_at_once_and_the_next_after_a_pause(setup: Setup) -> None:
    setup.reporter.update({"loss": 3.0})
    setup.reporter.update({"loss": 2.0})
    setup.clock.now += 0.1
    setup.reporter.update({"loss": 1.0, "acc": 0.5})
    assert setup.link.reports == [({"loss": 3.0}, 0, 0)]
    setup.clock.now += 0.11
    setup.reporter.tick()
    assert setup.link.reports[1:] == [({"loss": 1.0, "acc": 0.5}, 0, 0)]


def test_the_first_values_leave_at_once_behind_the_word_that_the_process_has_begun(
    setup: Setup,
) -> None:
    """A function may report once and then be busy for long."""
    setup.reporter.begin()
    setup.reporter.update({"ready": 1.0})
    assert setup.link.reports == [({}, 0, 0), ({"ready": 1.0}, 0, 0)]


def test_row_counts_alone_are_news(setup: Setup) -> None:
    setup.reporter.tick()
    assert setup.link.reports == []
    setup.counts = (10, 2)
    setup.reporter.tick()
    assert setup.link.reports == [({}, 10, 2)]


def test_nothing_new_is_not_sent_again(setup: Setup) -> None:
    setup.reporter.update({"loss": 1.0})
    setup.clock.now += 10
    setup.reporter.tick()
    setup.reporter.flush()
    assert len(setup.link.reports) == 1


def test_the_end_sends_what_is_left_without_a_pause(setup: Setup) -> None:
    setup.reporter.update({"loss": 2.0})
    setup.reporter.update({"loss": 1.0})
    setup.reporter.flush()
    assert setup.link.reports[-1] == ({"loss": 1.0}, 0, 0)


@pytest.mark.parametrize("value", [1, 1.5, True, np.float32(1), np.array(2), np.array([2])])
def test_numbers_of_every_kind_are_taken(setup: Setup, value: Any) -> None:
    setup.reporter.update({"v": value})
    (values, _, _) = setup.link.reports[0]
    assert values == {"v": float(np.asarray(value).item())}


def test_tensors_are_taken_with_and_without_gradient(setup: Setup) -> None:
    torch = pytest.importorskip("torch")
    setup.reporter.update({"a": torch.tensor(1.5, requires_grad=True), "b": torch.tensor([2])})
    assert setup.link.reports == [({"a": 1.5, "b": 2.0}, 0, 0)]


@pytest.mark.parametrize("value", ["1", b"1", None, np.arange(2), [1.0], {}])
def test_what_is_not_one_number_is_refused_by_name(setup: Setup, value: Any) -> None:
    with pytest.raises(DataError, match="loss"):
        setup.reporter.update({"loss": value})


def test_what_else_changes_while_the_process_gets_on_is_told(setup: Setup) -> None:
    place = [(1, 40)]
    reporter = Reporter(setup.link, lambda: setup.counts, setup.clock, lambda: place[0])
    reporter.tick()
    assert setup.link.reports == []
    place[0] = (1, 32)
    reporter.tick()
    assert setup.link.reports == [({}, 0, 0)]
    setup.clock.now += 1
    reporter.tick()
    assert len(setup.link.reports) == 1, "waiting is no progress"
    reporter.note()
    reporter.tick()
    assert len(setup.link.reports) == 2
