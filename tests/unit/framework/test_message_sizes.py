"""How much the master says and hears in clusters of 1, 100 and 1,000 nodes."""

from __future__ import annotations

import pytest

from benchmarks.many_nodes import message_bytes

BUDGET_BYTES = {"register": 260, "register_reply": 60, "attend": 100, "beat": 200}


@pytest.mark.parametrize("nodes", [1, 100, 1000])
def test_what_a_node_says_does_not_grow_with_the_cluster(nodes: int) -> None:
    sizes = message_bytes(nodes)
    assert {
        name: sizes[name] for name in BUDGET_BYTES if sizes[name] > BUDGET_BYTES[name]
    } == {}


@pytest.mark.parametrize("nodes", [1, 100, 1000])
def test_a_start_costs_at_most_20_bytes_for_each_node_of_the_cluster(nodes: int) -> None:
    assert message_bytes(nodes)["start"] <= 60 + 20 * nodes
