"""What is left on disk of children whose JVM was killed: nothing."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest

from .conftest import Cluster
from .test_recovery import sleeper


@pytest.mark.parametrize("is_socket_elsewhere", [False, True])
def test_without_their_jvm_master_and_node_remove_their_directories_and_the_socket(
    cluster: Cluster, tmp_path: Path, is_socket_elsewhere: bool
) -> None:
    place = tmp_path / ("elsewhere" if is_socket_elsewhere else "node-1")
    if is_socket_elsewhere:
        place.mkdir()
    master = cluster.master()
    node = cluster.node(sleeper(), has_master=True, queue_socket=str(place / "queue"))
    node.expect("process_started")
    with socket.socket(socket.AF_UNIX) as queue:
        queue.bind(str(place / "queue"))
    assert (tmp_path / "node-1" / "process-1-0" / "process.json").exists()
    assert (tmp_path / "master-0" / "events-0.jsonl").exists()
    for child in (node, master):
        child.close_stdin()
        assert child.wait(5) == 0
    assert not (tmp_path / "node-1").exists()
    assert not (tmp_path / "master-0").exists()
    assert not place.exists()


@pytest.mark.parametrize("module", ["master", "node"])
def test_without_their_jvm_master_and_node_that_fail_leave_no_directory(
    cluster: Cluster, tmp_path: Path, module: str
) -> None:
    child = cluster.broken(module)
    child.close_stdin()
    assert child.wait(10) == 1
    assert f"the {module} failed" in child.log
    assert not (tmp_path / f"{module}-0").exists()


def test_a_master_that_fails_leaves_the_directory_to_its_jvm(
    cluster: Cluster, tmp_path: Path
) -> None:
    child = cluster.broken("master")
    child.expect("fail")
    assert child.wait(5) == 1
    assert (tmp_path / "master-0" / "spec.json").exists()


def test_a_master_that_is_told_to_end_while_its_jvm_goes_leaves_no_directory(
    cluster: Cluster, tmp_path: Path
) -> None:
    master = cluster.master()
    master.popen.send_signal(signal.SIGSTOP)
    master.close_stdin()
    master.popen.send_signal(signal.SIGTERM)
    master.popen.send_signal(signal.SIGCONT)
    assert master.wait(5) == 0
    assert not (tmp_path / "master-0").exists()


def test_a_killed_process_of_the_master_leaves_the_directory_to_the_next_master(
    cluster: Cluster, tmp_path: Path
) -> None:
    master = cluster.master()
    master.popen.kill()
    master.wait(5)
    assert (tmp_path / "master-0" / "spec.json").exists()
