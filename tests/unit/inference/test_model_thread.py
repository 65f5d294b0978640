"""The thread that calls the model."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace._environ import copy_environment
from headrace.exchange import Batch, End, Item, MemoryFeed
from headrace.framework.stopping import StopRequestedExit
from headrace.inference import PythonModel, ScoringEntry, ScoringSettings
from headrace.inference.model_thread import ModelThread
from tests.unit.role.doubles import FakeLink, spec_in


def test_results_come_in_the_order_of_the_starts_from_one_other_thread() -> None:
    with ModelThread() as thread:
        for number in range(3):
            thread.start(partial(lambda n: (n, threading.get_ident()), number))
        results = [thread.result() for _ in range(3)]
    assert [number for number, _ in results] == [0, 1, 2]
    assert len({ident for _, ident in results} - {threading.get_ident()}) == 1


def test_what_a_call_raises_comes_out_of_its_result_and_the_next_has_its_own() -> None:
    with ModelThread() as thread:
        thread.start(partial(int, "x"))
        thread.start(partial(int, "7"))
        with pytest.raises(ValueError, match=r"invalid literal for int\(\) with base 10: 'x'"):
            thread.result()
        assert thread.result() == 7


def test_at_the_end_the_call_that_runs_is_waited_for_and_those_behind_it_are_dropped() -> None:
    began, may_end, made = threading.Event(), threading.Event(), []

    def run() -> None:
        began.set()
        assert may_end.wait(30)
        made.append("first")

    with ModelThread() as thread:
        thread.start(run)
        thread.start(partial(made.append, "second"))
        assert began.wait(30)
        threading.Timer(0.1, may_end.set).start()
    assert made == ["first"]
    assert "headrace-model" not in {each.name for each in threading.enumerate()}


def leave_with(raised: BaseException, call: Callable[[], None], began: threading.Event) -> None:
    """Leave the block of a thread that makes `call`, once it has begun, by an exception."""
    with ModelThread() as thread:
        thread.start(call)
        assert began.wait(30)
        raise raised


def test_an_exception_interrupts_a_call_in_python_and_its_cleanup_runs() -> None:
    began, cleaned = threading.Event(), threading.Event()

    def run() -> None:
        began.set()
        try:
            while True:
                threading.Event().wait(0.01)
        finally:
            cleaned.set()

    with pytest.raises(StopRequestedExit):
        leave_with(StopRequestedExit(), run, began)
    assert cleaned.is_set()
    assert "headrace-model" not in {each.name for each in threading.enumerate()}


def test_a_call_inside_a_library_is_left_behind_a_second_after_an_exception() -> None:
    began, lock, left = threading.Event(), threading.Lock(), []

    def run() -> None:
        began.set()
        with lock:  # no instruction of Python meanwhile
            left.append("late")

    with lock:
        start_s = time.monotonic()
        with pytest.raises(ZeroDivisionError):
            leave_with(ZeroDivisionError(), run, began)
        assert 0.9 < time.monotonic() - start_s < 10
        assert not left


@pytest.mark.timeout(90)  # a process of its own imports torch
def test_the_number_of_threads_that_torch_was_told_holds_for_a_lone_matrix_product() -> None:
    program = """
import os, torch
from headrace.inference.model_thread import ModelThread
torch.set_num_threads(1)
x = torch.ones(1500, 1500)
with ModelThread() as thread:
    before = len(os.listdir("/proc/self/task"))
    thread.start(lambda: torch.mm(x, x))
    thread.result()
    print(len(os.listdir("/proc/self/task")) - before)
"""
    environment = {**copy_environment(), "OMP_NUM_THREADS": "4", "MKL_NUM_THREADS": "4"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert done.stdout.split() == [b"0"], done


def test_a_batch_is_let_go_of_when_it_was_emitted_also_where_the_next_ones_lie_ready(
    tmp_path: Path,
) -> None:
    alive: set[int] = set()
    alive_at: list[set[int]] = []

    def batches() -> Iterator[Item]:
        for number in range(12):
            alive_at.append(set(alive))
            memory = np.full(4, number, np.int64)
            alive.add(number)
            weakref.finalize(memory, alive.discard, number)
            xs = pa.Array.from_buffers(pa.int64(), 4, [None, pa.py_buffer(memory)])
            yield Batch(pa.record_batch([xs], names=["x"]), None)
        yield End()

    feed = MemoryFeed(
        batches(),
        input_schema=pa.schema([("x", pa.int64())]),
        output_schema=pa.schema([("y", pa.float64())]),
    )
    settings = ScoringSettings(kept=(), outputs=("y",), batch_rows=4)
    model = PythonModel(lambda: lambda columns: columns["x"] * 0.5)
    ScoringEntry(model, settings)(spec_in(tmp_path), FakeLink(), feed=feed)
    assert feed.output["y"].to_pylist() == [n * 0.5 for n in range(12) for _ in range(4)]
    assert all(min(numbers, default=n) >= n - 4 for n, numbers in enumerate(alive_at)), alive_at
