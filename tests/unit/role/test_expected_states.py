"""A process says how large its state will be, so that memory is made before a barrier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.exchange import Barrier, End, Item, MemoryFeed
from headrace.role import RoleContext

from .test_kept_state import SCHEMA, batch, run, state_file

MIB = 1 << 20


class Feed(MemoryFeed):
    """Notes what is expected, each with the number of batches that were handled then."""

    def __init__(self, *items: Item) -> None:
        super().__init__(items, input_schema=SCHEMA)
        self.handled = 0
        self.expected: list[tuple[int, int]] = []

    def expect_state(self, size_bytes: int) -> None:
        self.expected.append((self.handled, size_bytes))
        super().expect_state(size_bytes)


class Adaptive:
    """An optimizer that has its moments from the first step on."""

    def __init__(self) -> None:
        self.moments: list[Any] = []
        self.looks = 0

    def step(self) -> None:
        self.moments = self.moments or [np.zeros(MIB), np.zeros(MIB)]

    def state_dict(self) -> dict[str, Any]:
        self.looks += 1
        return {"moments": self.moments}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments = list(state["moments"])


def train(feed: Feed, optimizer: Any) -> Any:
    def entry(ctx: RoleContext) -> None:
        ctx.checkpointed(optimizer=optimizer)
        for _ in ctx.batches(rows=100):
            optimizer.step()
            feed.handled += 1

    return entry


def items() -> list[Item]:
    return [batch(1), Barrier(4), batch(2), Barrier(5), batch(3), End()]


@pytest.mark.parametrize("index", [0, 1])
def test_the_size_is_that_of_the_state_behind_the_first_step(
    tmp_path: Path, index: int
) -> None:
    feed = Feed(*items())
    run(tmp_path, feed, train(feed, Adaptive()), has_checkpoints=True, index=index)
    *before, (handled, size_bytes) = feed.expected
    assert handled == 1
    assert size_bytes == len(feed.states[0][1]) > 16 * MIB
    assert [each for each, _ in feed.states] == [4, 5, None, None]
    if index == 0:  # it keeps all that others have in common, and it is known before
        ((handled, size_bytes),) = before
        assert handled == 0
        assert size_bytes < MIB
    else:
        assert before == []


def test_a_restored_process_knows_it_before_its_first_row(tmp_path: Path) -> None:
    feed = Feed(*items())
    run(tmp_path, feed, train(feed, Adaptive()))
    restored = Feed(*items())
    given = state_file(tmp_path, feed.states[0][1])
    run(tmp_path, restored, train(restored, Adaptive()), has_checkpoints=True, **given)
    ((handled, size_bytes),) = restored.expected
    assert handled == 0
    assert size_bytes == len(restored.states[0][1])


def test_without_checkpoints_no_memory_is_made_for_them(tmp_path: Path) -> None:
    feed, optimizer = Feed(*items()), Adaptive()
    run(tmp_path, feed, train(feed, optimizer))
    assert feed.expected == []
    assert optimizer.looks == len(feed.states) == 4


class Costly(Adaptive):
    is_costly = True


class Served(Adaptive):
    def for_others(self, state: dict[str, Any]) -> dict[str, Any]:
        return state


@pytest.mark.parametrize("kind", [Costly, Served])
def test_a_state_that_is_costly_to_look_at_is_left_alone(
    tmp_path: Path, kind: type[Adaptive]
) -> None:
    feed, optimizer = Feed(*items()), kind()
    run(tmp_path, feed, train(feed, optimizer), has_checkpoints=True)
    assert feed.expected == []
    assert optimizer.looks == len(feed.states) == 4


class Shy(Adaptive):
    """Fails at the first look."""

    def state_dict(self) -> dict[str, Any]:
        found = super().state_dict()
        if self.looks == 1:
            msg = "not yet"
            raise ValueError(msg)
        return found


def test_a_look_that_fails_is_left_to_the_capture(tmp_path: Path) -> None:
    feed = Feed(batch(1), batch(2), Barrier(4), End())
    run(tmp_path, feed, train(feed, Shy()), has_checkpoints=True)
    assert feed.expected == []
    assert feed.states[0][0] == 4
