"""Which of the records about masters counts, however they arrive."""

from __future__ import annotations

import json
from typing import Any

import pytest


@pytest.fixture
def latest(classes: Any) -> Any:
    return classes.org.headrace.operator.LatestMaster()


def record(deployment: int, master_restarts: int, token: str = "t") -> str:
    return json.dumps(
        {"deployment": deployment, "master_restarts": master_restarts, "token": token}
    )


def test_the_first_record_and_later_ones_count(latest: Any) -> None:
    assert latest.accept(record(0, 0))
    assert latest.accept(record(0, 1))
    assert latest.accept(record(0, 3))
    assert latest.accept(record(1, 0))


def test_a_record_that_was_overtaken_or_comes_twice_does_not_count(latest: Any) -> None:
    assert latest.accept(record(2, 1))
    assert not latest.accept(record(2, 1))
    assert not latest.accept(record(2, 0))
    assert not latest.accept(record(1, 5))
    assert latest.accept(record(2, 2))


def test_what_the_coordinator_answers_has_no_token_and_gets_the_one_that_is_known(
    latest: Any,
) -> None:
    assert latest.accept(record(0, 0, "of the first"))
    assert latest.accept(record(1, 0, "of the second"))
    completed = latest.complete('{"deployment": 1, "master_restarts": 1, "address": "a"}')
    assert json.loads(completed) == json.loads(record(1, 1, "of the second")) | {"address": "a"}
    assert latest.accept(completed)
    assert not latest.accept(latest.complete('{"deployment": 0, "master_restarts": 9}'))


def test_the_coordinator_is_asked_once_at_a_time(latest: Any) -> None:
    assert [latest.beginAsking() for _ in range(3)] == [True, False, False]
    latest.endAsking()
    assert [latest.beginAsking() for _ in range(3)] == [True, False, False]
