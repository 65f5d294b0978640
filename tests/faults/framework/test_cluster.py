"""Master and nodes together, as real processes."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from headrace.framework.messages import Beat, Register
from headrace.framework.rpc.client import MasterClient

from .conftest import TOKEN, Cluster


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


@pytest.mark.parametrize("first", ["master", "nodes"])
def test_the_log_of_a_master_that_ends_in_order_has_no_traceback(
    cluster: Cluster, first: str
) -> None:
    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(lambda spec, link: None, 2)
    master.expect("finish")
    ordered = [master, *nodes] if first == "master" else [*nodes, master]
    for child in ordered:
        child.send("stop", reason="end")
    for child in ordered:
        assert child.wait(5) == 0
        assert "Traceback" not in child.log
        assert "Error" not in child.log


def test_a_master_that_ends_while_many_beat_has_no_traceback_in_its_log(
    cluster: Cluster,
) -> None:
    master = cluster.master()
    node: dict[str, Any] = {"node": "worker-0", "instance": "one", "attempt": 1}

    async def beat_until_the_end() -> None:
        clients = [MasterClient(cluster.address, TOKEN) for _ in range(50)]
        place = Register(role="worker", index=0, parallelism=1, host="127.0.0.1", **node)
        await clients[0].register(place, timeout_s=5)
        beating: set[int] = set()
        are_all_beating = asyncio.Event()

        async def beats(number: int) -> AsyncIterator[Beat]:
            while True:
                yield Beat(**node)
                await asyncio.sleep(0.01)
                beating.add(number)
                if len(beating) == len(clients):
                    are_all_beating.set()

        streams = [
            asyncio.ensure_future(client.beat(beats(number)))
            for number, client in enumerate(clients)
        ]
        await asyncio.wait_for(are_all_beating.wait(), 10)
        master.send("stop", reason="end")
        await asyncio.wait_for(asyncio.gather(*streams, return_exceptions=True), 10)
        for client in clients:
            await client.close()

    asyncio.run(beat_until_the_end())
    assert master.wait(5) == 0
    assert "Traceback" not in master.log


def test_a_master_is_bound_when_it_says_where_it_listens(cluster: Cluster) -> None:
    for _ in range(3):
        cluster.master()
        host, _, port = cluster.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5.0) as client:
            assert client.getpeername() == (host, int(port))
