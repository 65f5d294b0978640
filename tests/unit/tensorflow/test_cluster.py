"""The cluster as TensorFlow sees it, where a variable goes, and which pass a dataset is in."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from headrace.errors import UsageError
from headrace.tensorflow.cluster import TFCluster
from headrace.tensorflow.passes import Passes
from headrace.tensorflow.placement import Placement

ADDRESSES: dict[str, Sequence[str]] = {
    "worker": ("h0:1", "h1:2"),
    "ps": ("h0:3",),
    "chief": ("h2:4",),
    "evaluator": ("h2:5",),
    "tensorboard": ("h2:6",),
}


def test_tf_config_names_the_training_cluster_and_this_task() -> None:
    cluster = TFCluster(role="worker", index=1, addresses=ADDRESSES)
    assert json.loads(cluster.tf_config) == {
        "cluster": {"chief": ["h2:4"], "worker": ["h0:1", "h1:2"], "ps": ["h0:3"]},
        "task": {"type": "worker", "index": 1},
    }


def test_an_evaluator_is_a_task_but_no_member_of_the_cluster() -> None:
    config = json.loads(TFCluster(role="evaluator", index=0, addresses=ADDRESSES).tf_config)
    assert config["task"] == {"type": "evaluator", "index": 0}
    assert "evaluator" not in config["cluster"]


@pytest.mark.parametrize(
    ("role", "index", "rank", "is_chief"),
    [("chief", 0, 0, True), ("worker", 0, 1, False), ("worker", 1, 2, False)],
)
def test_the_chief_comes_before_the_workers(
    role: str, index: int, rank: int, is_chief: bool
) -> None:
    cluster = TFCluster(role=role, index=index, addresses=ADDRESSES)
    assert (cluster.rank, cluster.is_chief, cluster.group_size) == (rank, is_chief, 3)


@pytest.mark.parametrize(
    ("on_stream", "savers"),
    [(False, {("chief", 0), ("evaluator", 0)}), (True, {("worker", 0), ("evaluator", 0)})],
)
def test_the_chief_saves_in_batch_mode_and_worker_0_on_the_stream(
    on_stream: bool, savers: set[tuple[str, int]]
) -> None:
    found = {
        (role, index)
        for role, addresses in ADDRESSES.items()
        for index in range(len(addresses))
        if TFCluster(role=role, index=index, addresses=ADDRESSES).is_saver(on_stream=on_stream)
    }
    assert found == savers


def test_worker_0_leads_where_there_is_no_chief() -> None:
    addresses = {"worker": ("[::1]:1", "h1:2")}
    first, second = (
        TFCluster(role="worker", index=index, addresses=addresses) for index in (0, 1)
    )
    assert (first.is_chief, second.is_chief) == (True, False)
    assert (first.host, second.host) == ("::1", "h1")
    assert first.servers == []
    assert not TFCluster(role="ps", index=0, addresses=ADDRESSES).is_chief


def test_a_variable_goes_where_the_fewest_bytes_are() -> None:
    placement = Placement(3)
    assert [placement.place(size) for size in (100, 10, 10, 5, 5, 1)] == [0, 1, 2, 1, 2, 1]


def test_what_had_to_go_beside_another_variable_counts_too() -> None:
    placement = Placement(2)
    placement.place(10)
    placement.place(10)
    placement.put(0, 100)
    assert [placement.place(30) for _ in range(3)] == [1, 1, 1]


def test_each_complete_iteration_is_a_pass_and_a_left_one_goes_on() -> None:
    passes = Passes()
    assert passes.goes_on(is_first=True, epochs=2)
    assert passes.goes_on(is_first=False, epochs=2)
    assert passes.goes_on(is_first=True, epochs=2)  # the first one was left
    passes.end()
    assert not passes.goes_on(is_first=False, epochs=2)
    assert passes.goes_on(is_first=True, epochs=2)
    passes.end()
    with pytest.raises(UsageError, match=r"iterated 3 times.*epochs=2.*Plan epochs=3"):
        passes.goes_on(is_first=True, epochs=2)


@pytest.mark.parametrize(("at_once", "asked"), [(1, 3), (2, 4), (3, 3), (4, 4)])
def test_an_iteration_is_cut_where_keras_would_leave_it(at_once: int, asked: int) -> None:
    """Its first epoch found 2 batches and asked for `asked`; so do the later ones."""
    passes = Passes(epoch=1)
    passes.goes_on(is_first=True, epochs=4)
    passes.count(2)
    assert not passes.is_cut(untaken=0, at_once=at_once)
    passes.end()
    assert not passes.is_cut(untaken=0, at_once=at_once)
    passes.goes_on(is_first=True, epochs=4)
    passes.count(6)
    cut = [n for n in range(7) if passes.is_cut(untaken=6 - n, at_once=at_once)]
    assert cut == [asked]
    passes.count(-6)
    assert not passes.is_cut(untaken=0, at_once=at_once)
