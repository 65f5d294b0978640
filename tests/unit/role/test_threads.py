"""With how many threads a process computes."""

from __future__ import annotations

import pytest

from headrace.role import choose_threads


def test_threads_are_divided_among_the_workers_of_a_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(8)))
    assert choose_threads(["a", "b", "a", "a"], 0) == 2
    assert choose_threads(["a", "b", "a", "a"], 1) == 8
    assert choose_threads(["a"] * 20, 3) == 1
    assert choose_threads([], 0) == 8


def test_an_explicit_thread_count_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(["a"], 0) is None
