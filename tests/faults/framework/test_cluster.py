"""Master and nodes together, as real processes."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Cluster


def test_two_nodes_meet_through_the_master_and_finish(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        other = 1 - spec.index
        link.publish(f"name-{spec.index}", f"I am {spec.index}")
        assert link.lookup(f"name-{other}", 10.0) == f"I am {other}"
        link.report({"loss": 0.5}, 10, 3)
        sys.stdout.write(f"cluster {spec.cluster} {spec.attempt}\n")

    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(entry, 2)
    for node in nodes:
        ended = node.expect("process_ended")
        assert (ended["outcome"], ended["attempt"], ended["failure"]) == ("finished", 1, None)
    finish = master.expect("finish")
    assert finish["reason"] == "every process has finished"
    for child in (*nodes, master):
        child.send("stop", reason="end")
        assert child.wait(3) == 0
    assert "cluster {'worker': ('127.0.0.1', '127.0.0.1')} 1" in nodes[0].log
    states = [line["status"]["state"] for line in master.seen if line["type"] == "status"]
    assert states[-1] == "FINISHED"


def test_a_master_is_bound_when_it_says_where_it_listens(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.master()
        host, _, port = cluster.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5.0) as client:
            assert client.getpeername() == (host, int(port))
