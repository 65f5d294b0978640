"""Ports that nodes keep: known to everybody before anybody starts, and the same for ever."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.framework import NodeSpec
from tests.faults.framework.conftest import QUICK
from tests.waiting import until

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Child, Cluster

SPEC = NodeSpec(timeouts=QUICK, has_port=True, url_scheme="http")


def serves() -> Callable[..., None]:
    """Listens on its own port, then reports the ports of everybody."""

    def entry(spec: Any, link: Any) -> None:
        import signal
        import socket

        with socket.create_server((spec.host, spec.port)):
            ports = dict(enumerate(spec.ports["worker"]))
            assert spec.addresses["worker"][spec.index] == f"{spec.host}:{spec.port}"
            link.report({f"port_{index}": port for index, port in ports.items()}, 0, 0)
            signal.pause()

    return entry


def ports_told(node: Child) -> dict[str, int]:
    values: dict[str, int] = node.expect("report")["values"]
    return values


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_every_process_finds_all_ports_at_its_start_and_the_same_after_a_restart(
    cluster: Cluster,
) -> None:
    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(serves(), 2, spec=SPEC)
    pid = nodes[1].expect("process_started")["pid"]
    first = ports_told(nodes[0])
    assert len(set(first.values())) == 2
    assert ports_told(nodes[1]) == first
    assert all(accepts(int(port)) for port in first.values())
    os.kill(pid, signal.SIGKILL)
    assert ports_told(nodes[1]) == first
    assert ports_told(nodes[0]) == first
    status = master.expect_state("RUNNING")
    assert status["nodes"]["worker-1"]["address"] == f"127.0.0.1:{int(first['port_1'])}"
    assert status["nodes"]["worker-1"]["url"] == f"http://127.0.0.1:{int(first['port_1'])}"


def test_a_port_outlives_the_master(cluster: Cluster) -> None:
    former = cluster.master(parallelism=1)
    (node,) = cluster.nodes(serves(), 1, spec=SPEC)
    first = ports_told(node)
    former.popen.kill()
    master = cluster.master(parallelism=1)
    cluster.introduce(node)
    status = master.expect_state("RUNNING")
    assert status["nodes"]["worker-0"]["address"] == f"127.0.0.1:{int(first['port_0'])}"
    assert accepts(int(first["port_0"]))


def test_a_node_without_a_master_keeps_a_port_too_and_gives_it_back(cluster: Cluster) -> None:
    def entry(spec: Any, link: Any) -> None:
        import signal

        link.report({"port": spec.port}, 0, 0)
        signal.pause()

    node = cluster.node(entry, spec=SPEC)
    port = int(node.expect("report")["values"]["port"])
    assert not accepts(port)
    node.send("stop", reason="end")
    assert node.wait(5) == 0
    with socket.socket() as other:
        until(lambda: is_bound(other, port), "the port to be free")


def is_bound(it: socket.socket, port: int) -> bool:
    try:
        it.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
