"""How workers meet, and what they say when a peer does not come."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from headrace.config import TimeoutConfig
from headrace.errors import CollectiveError, WaitTimeoutError
from headrace.pytorch.group import GroupSpec, _telling, open_group
from tests.unit.pytorch.training import run

CLOSED = (
    "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:20696"  # gloo's
)


class NobodyPublishes:
    def publish(self, key: str, value: str) -> None:
        raise AssertionError(key)

    def lookup(self, key: str, timeout_s: float) -> str:
        raise WaitTimeoutError(waited_for=key, waited_s=timeout_s, setting="timeout_s")


_CONNECT_WHEN_TOLD = """
import socket

from headrace.pytorch.group import GroupSpec, _open_store


class Connecting:
    def publish(self, key, value):
        host, _, port = value.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5.0):
            print(key)

    def lookup(self, key, timeout_s):
        raise AssertionError(key)


spec = GroupSpec(role="worker", rank=0, world_size=2, attempt=3, host="127.0.0.1")
store = _open_store(spec, Connecting())
"""


def test_a_first_worker_that_never_comes_is_an_error_that_names_the_setting() -> None:
    spec = GroupSpec(role="worker", rank=1, world_size=2, attempt=1, host="127.0.0.1")
    with pytest.raises(WaitTimeoutError, match=r"worker-0 .* `timeouts\.gather_timeout_s`"):
        open_group(spec, NobodyPublishes())


@pytest.mark.timeout(120)
def test_a_peer_that_does_not_take_part_is_an_error_that_names_the_setting() -> None:
    def train(ctx: Any) -> None:
        if ctx.rank == 1:
            assert "collective_timeout_s" in ctx.lookup("error", 60.0)
            return
        model = nn.Linear(1, 1)
        with pytest.raises(CollectiveError) as caught:
            ctx.data_parallel(model, torch.optim.SGD(model.parameters(), lr=0.1))
        assert caught.value.limit_s == 5.0
        ctx.publish("error", str(caught.value))

    run(
        train,
        workers=2,
        timeouts=TimeoutConfig(collective_timeout_s=5.0),
        timeout_s=90.0,
    )


@pytest.mark.timeout(120)
def test_models_that_differ_are_refused_on_every_worker() -> None:
    def train(ctx: Any) -> None:
        model = nn.Linear(1 + ctx.rank, 1)
        with pytest.raises(ValueError, match="models differ"):
            ctx.data_parallel(model, torch.optim.SGD(model.parameters(), lr=0.1))
        ctx.report(is_refused=1)

    result = run(train, workers=2, timeout_s=90.0)
    assert [report["is_refused"] for report in result.reports] == [1, 1]


def test_the_store_is_bound_before_its_address_is_told() -> None:
    done = subprocess.run(  # TCPStore keeps a pipe open for as long as its process lives
        [sys.executable, "-c", _CONNECT_WHEN_TOLD],
        capture_output=True,
        text=True,
        check=False,
        timeout=60.0,
    )
    assert (done.returncode, done.stdout) == (0, "pytorch/worker/3/store\n"), done.stderr


@pytest.mark.parametrize(
    ("limit_s", "pauses"),
    [
        pytest.param(60.0, 1, id="a-peer-has-ended"),
        pytest.param(0.0, 0, id="the-limit-is-over"),
    ],
)
def test_a_lost_peer_may_tell_the_cause_before_this_worker_fails(
    monkeypatch: pytest.MonkeyPatch, limit_s: float, pauses: int
) -> None:
    waits: list[str] = []
    monkeypatch.setattr(
        "headrace.pytorch.group.let_the_cause_go_first", lambda: waits.append("waited")
    )
    with (
        pytest.raises(CollectiveError) as caught,
        _telling("all-reduce 7", limit_s),
    ):
        raise RuntimeError(CLOSED)
    assert caught.value.is_consequence == (pauses == 1)
    assert len(waits) == pauses


def test_a_failure_that_is_not_about_peers_stays_as_it_is() -> None:
    failure = RuntimeError("not enough memory: you tried to allocate 8 bytes")
    with pytest.raises(RuntimeError) as caught, _telling("sum", 60):
        raise failure
    assert caught.value is failure


def test_a_collective_of_the_entry_function_that_lost_a_peer_waits_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[str] = []
    monkeypatch.setattr(
        "headrace.pytorch.entry.let_the_cause_go_first", lambda: waits.append("waited")
    )

    def lose_a_peer(_: Any) -> None:
        raise RuntimeError(CLOSED)

    def fail(_: Any) -> None:
        msg = "my own mistake"
        raise RuntimeError(msg)

    for train, text in ((lose_a_peer, "Connection closed"), (fail, "my own mistake")):
        with pytest.raises(RuntimeError, match=text):
            run(train)
    assert waits == ["waited"]
