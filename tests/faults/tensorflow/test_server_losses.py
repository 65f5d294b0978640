"""Clients of parameter servers come and go, and servers die."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from headrace import testing
from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import UserCodeError
from tests.faults.tensorflow.restarts import NamedServer, Plan, run

pytestmark = pytest.mark.timeout(300)  # a busy machine takes long to import TensorFlow

RESTARTS = 4


def test_clients_that_come_at_once_and_that_come_back_do_the_server_no_harm() -> None:
    seen = run(Plan(rounds=2, restarts=RESTARTS), timeout_s=280.0)
    threads = seen["after.threads"] - seen["before.threads"]
    assert threads <= 9 * RESTARTS, dict(seen)  # what KEEP_ALIVE_S states, and some
    assert seen["after.mib"] - seen["before.mib"] <= 3 * RESTARTS, dict(seen)


def failure_by(number: signal.Signals, **settings: Any) -> UserCodeError:
    """Return how a run fails in which worker 0 sends the server a signal, and trains on."""

    def train(ctx: Any) -> None:
        import keras
        import tensorflow as tf

        optimizer = keras.optimizers.SGD(0.1)
        with ctx.parameter_servers():
            weight = tf.Variable([1.0], name="weight")
        made = 0
        while True:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(weight**2)
            optimizer.apply(tape.gradient(loss, [weight]), [weight])
            made += 1
            if made == 20 and ctx.index == 0:
                os.kill(int(ctx.lookup("ps/pid", 10.0)), number)

    with pytest.raises(UserCodeError) as caught:
        testing.run(
            train,
            framework="tensorflow",
            workers=2,
            others={"ps": RoleConfig(entry=NamedServer(), has_port=True)},
            timeout_s=280.0,
            **settings,
        )
    return caught.value


def test_a_killed_server_is_the_cause_and_ends_the_workers() -> None:
    error = failure_by(signal.SIGKILL)
    assert error.node == "ps-0"
    assert "SIGKILL" in str(error)


def test_a_frozen_server_is_named_and_ends_the_workers_that_wait_for_it() -> None:
    limits = TimeoutConfig(heartbeat_every_s=0.2, heartbeat_timeout_s=2.0, stop_grace_s=0.5)
    error = failure_by(signal.SIGSTOP, timeouts=limits)
    assert error.node == "ps-0"
    assert "(limit 2.0 s, set by `timeouts.heartbeat_timeout_s`)" in error.summary
    assert "SIGSTOP" in error.summary
