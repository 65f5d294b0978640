"""A worker of a synchronous training fails, dies or falls silent: nobody waits for it long."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import testing
from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import UserCodeError
from headrace.role import RoleEntry
from headrace.testing import Kill, Pause

pytestmark = pytest.mark.timeout(300)  # a busy machine takes long to import TensorFlow

TABLE = pa.table({"x": np.ones(4_000, np.float32), "y": np.ones(4_000, np.float32)})


def train(ctx: Any, units: int = 1, on_batch: Any = None) -> None:
    import keras

    class Watch(keras.callbacks.Callback):  # type: ignore[misc] # has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if on_batch is not None and ctx.rank == 1 and batch == 5:
                on_batch()

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units)])
    model.compile("sgd", "mse")
    ctx.data_parallel(model)
    data = ctx.dataset(8, features=["x"], label="y")
    model.fit(data, callbacks=[Watch()], verbose=0)


def failure_of(entry: Any, **settings: Any) -> UserCodeError:
    with pytest.raises(UserCodeError) as caught:
        testing.run(
            entry, TABLE, framework="tensorflow", workers=2, timeout_s=280.0, **settings
        )
    return caught.value


def test_an_exception_on_one_worker_is_the_cause_and_ends_the_other() -> None:
    def fail() -> None:
        msg = "boom"
        raise ValueError(msg)

    error = failure_of(lambda ctx: train(ctx, on_batch=fail))
    assert (error.node, error.summary) == ("worker-1", "ValueError: boom")


def test_a_killed_worker_is_the_cause_and_ends_the_other() -> None:
    error = failure_of(train, faults=[Kill(worker=1, after_rows=64)], batch_rows=64)
    assert error.node == "worker-1"
    assert "SIGKILL" in str(error)


def test_a_frozen_worker_ends_the_other_at_the_limit_with_the_name_of_the_setting() -> None:
    def freeze() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    error = failure_of(
        lambda ctx: train(ctx, on_batch=freeze),
        timeouts=TimeoutConfig(collective_timeout_s=6.0, stop_grace_s=0.5),
    )
    assert error.node == "worker-0"
    assert "CollectiveError" in error.summary
    assert "timeouts.collective_timeout_s" in str(error)


def test_workers_with_different_models_are_told() -> None:
    error = failure_of(lambda ctx: train(ctx, units=1 + ctx.rank))
    assert "ConfigError: The models or loops of the group" in error.summary


def test_a_worker_that_waits_for_rows_in_fit_ends_when_its_node_says_so(
    tmp_path: Path,
) -> None:
    ended = tmp_path / "ended"

    def wait_for_rows(ctx: Any) -> None:
        import sys

        try:
            train(ctx, on_batch=None)
        finally:
            kind = sys.exc_info()[0]
            ended.write_text("returned" if kind is None else kind.__name__)

    def decide(ctx: Any) -> None:
        ctx.lookup("waits", 100.0)

    def tell_and_wait(ctx: Any) -> None:
        ctx.publish("waits", "yes")
        wait_for_rows(ctx)

    testing.run(
        tell_and_wait,
        TABLE,
        framework="tensorflow",
        others={"judge": RoleConfig(entry=RoleEntry(decide))},
        deciding=["judge"],
        faults=[Pause(worker=0, after_rows=64, for_s=1000.0)],
        batch_rows=64,
        timeouts=TimeoutConfig(stop_grace_s=20.0),
        timeout_s=280.0,
    )
    assert ended.read_text() == "StopRequestedExit"
