"""While large libraries are imported, the collector rests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from headrace._imports import without_collections


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_inside_and_the_collector_is_on_again_behind() -> None:
    before = [each["collections"] for each in gc.get_stats()]
    with without_collections():
        kept = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
        during = [each["collections"] for each in gc.get_stats()]
    assert during == before
    assert gc.isenabled()
    assert len(kept) == 100_000


def test_it_is_on_again_behind_a_failed_import() -> None:
    with pytest.raises(ModuleNotFoundError), without_collections():
        import no_such_module  # type: ignore[import-not-found] # noqa: F401
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with without_collections():
        pass
    assert not gc.isenabled()
