"""A JVM that is stopped keeps its pipes open: its children end behind Flink's limit."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.flink.system import descendants
from tests.waiting import always, live_until_ended, until, work_for

from .conftest import Child, Cluster, is_alive

LIMIT_S = 1.0
SLACK_S = 4.0
_JVM = """
import subprocess, sys
done = subprocess.run(sys.argv[1:], stderr=subprocess.PIPE)
sys.stderr.buffer.write(done.stderr)
sys.exit(done.returncode)
"""
"""Runs a child, and reads what it logs."""


@pytest.fixture
def below(cluster: Cluster) -> Cluster:
    """The children are those of processes of which each plays a JVM."""
    cluster.below = (sys.executable, "-c", _JVM)
    return cluster


@contextmanager
def frozen(jvm: Child) -> Iterator[None]:
    os.kill(jvm.popen.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(jvm.popen.pid, signal.SIGCONT)


def family(jvm: Child) -> list[int]:
    return [each.pid for each in descendants(jvm.popen.pid)]


def stepper(folder: Path, noise: int) -> Callable[[Any, Any], None]:
    """Make steps without end, and print so many characters at each."""
    steps = str(folder / "steps")

    def entry(spec: Any, link: Any) -> None:
        while True:
            with Path(steps).open("a") as file:
                file.write(".")
            print("x" * noise)  # noqa: T201
            work_for(0.005)

    return entry


@pytest.mark.parametrize("noise", [0, 10_000], ids=["quiet", "noisy"])
def test_a_node_whose_jvm_is_stopped_for_longer_ends_with_its_process(
    below: Cluster, tmp_path: Path, wait_gone: Callable[..., None], noise: int
) -> None:
    """Also one that fills the pipe that the JVM does not read."""
    entry = stepper(tmp_path, noise)
    node = below.node(entry, jvm_frozen_timeout_s=LIMIT_S)
    until((tmp_path / "steps").exists, "a step")
    pids = family(node)
    assert len(pids) == 2, "the node and its process"
    with frozen(node):
        wait_gone(*pids, timeout_s=LIMIT_S + SLACK_S)
        assert not [*tmp_path.glob("node-*/")], "it removes its work directory"
    assert node.wait(SLACK_S) == 0
    if not noise:
        assert "the JVM has been stopped (SIGSTOP) for 1.0 s (limit 1.0 s" in node.log


def test_a_master_whose_jvm_is_stopped_for_longer_ends(
    below: Cluster, tmp_path: Path, wait_gone: Callable[..., None]
) -> None:
    master = below.master(jvm_frozen_timeout_s=LIMIT_S)
    with frozen(master):
        wait_gone(*family(master), timeout_s=LIMIT_S + SLACK_S)
        assert not [*tmp_path.glob("master-*/")]
    assert master.wait(SLACK_S) == 0


def test_a_spare_whose_jvm_is_stopped_for_longer_ends_with_its_process(
    below: Cluster, tmp_path: Path, wait_gone: Callable[..., None]
) -> None:
    def entry(spec: Any, link: Any) -> None:
        live_until_ended()

    spare, _ = below.spare(entry, jvm_frozen_timeout_s=LIMIT_S)
    spare.expect("spare", until=lambda line: line["state"] == "ready")
    pids = family(spare)
    assert len(pids) == 2
    with frozen(spare):
        wait_gone(*pids, timeout_s=LIMIT_S + SLACK_S)
        assert not [*tmp_path.glob("node-*/")]
    assert spare.wait(SLACK_S) == 0


def test_a_jvm_that_goes_on_in_time_has_its_children(below: Cluster, tmp_path: Path) -> None:
    """Stopped for longer than the limit in all, but never at a stretch."""
    limit_s = 2.0
    node = below.node(stepper(tmp_path, 0), jvm_frozen_timeout_s=limit_s)
    steps = tmp_path / "steps"
    until(steps.exists, "a step")
    pids = family(node)
    for _ in range(3):
        with frozen(node):
            always(lambda: all(map(is_alive, pids)), "one has ended", for_s=limit_s / 2)
        always(lambda: all(map(is_alive, pids)), "one has ended", for_s=limit_s / 4)
    before = steps.stat().st_size
    until(lambda: steps.stat().st_size > before, "another step")
