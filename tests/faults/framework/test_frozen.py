"""Masters and nodes that hang instead of dying, and processes that are stopped."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from typing import Any

from headrace.config import TimeoutConfig
from headrace.framework import NodeSpec
from headrace.framework.local import run_local
from headrace.framework.local_role import LocalRole
from tests.waiting import always

from .conftest import QUICK, Child, Cluster, is_alive
from .test_recovery import sleeper

_NOTICE_S = 3.0


def test_a_process_that_is_stopped_is_named_and_killed_and_the_group_goes_on(
    cluster: Cluster,
) -> None:
    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(sleeper(), 2)
    pids = [pid_of(node, attempt=1) for node in nodes]
    stopped_at = time.monotonic()
    os.kill(pids[0], signal.SIGSTOP)
    end = nodes[0].expect("process_ended")
    seconds = time.monotonic() - stopped_at
    limit_s = QUICK.heartbeat_timeout_s
    assert 0.9 * limit_s < seconds < limit_s + _NOTICE_S
    assert (end["outcome"], end["failure"]["signal"]) == ("failed", "SIGKILL")
    text = "worker-0: The process was frozen: something has stopped it (SIGSTOP)"
    assert end["text"].startswith(text)
    assert "(limit 2.0 s, set by `timeouts.heartbeat_timeout_s`)" in end["text"]
    assert master.expect_state("RECOVERING")["reason"].startswith(text)
    for node in nodes:
        pid_of(node, attempt=2)


def test_a_process_that_goes_on_in_time_or_in_between_is_left_alone(cluster: Cluster) -> None:
    node = cluster.node(sleeper())
    pid = pid_of(node, attempt=1)
    part_s = 0.4 * QUICK.heartbeat_timeout_s
    for _ in range(5):  # never longer than the limit by itself, but together
        os.kill(pid, signal.SIGSTOP)
        always(lambda: is_alive(pid), "it was killed", for_s=part_s)
        os.kill(pid, signal.SIGCONT)  # and is stopped again before anybody looks
    always(lambda: is_alive(pid), "it was killed", for_s=QUICK.heartbeat_timeout_s)
    assert not [line for line in node.seen if line["type"] == "process_ended"]


def test_a_process_that_lets_no_thread_run_is_left_alone() -> None:
    def entry(spec: Any, link: Any) -> None:
        import ctypes

        ctypes.PyDLL(None).sleep(3)  # holds the interpreter's lock
        link.report({"woke": 1.0})

    limits = TimeoutConfig(heartbeat_every_s=0.1, heartbeat_timeout_s=0.5)
    (result,) = run_local({"worker": LocalRole(entry=entry)}, timeouts=limits, timeout_s=60)
    assert result.values == {"woke": 1.0}


def pid_of(node: Child, *, attempt: int) -> int:
    pid: int = node.expect("process_started", until=lambda line: line["attempt"] == attempt)[
        "pid"
    ]
    return pid


def test_a_master_that_hangs_is_named_by_its_nodes_within_the_limits(cluster: Cluster) -> None:
    limits = replace(QUICK, master_lost_timeout_s=2.0)
    master = cluster.master(parallelism=2, timeouts=limits)
    nodes = cluster.nodes(sleeper(), 2, spec=NodeSpec(timeouts=limits))
    for node in nodes:
        node.expect("process_started")
    os.kill(master.popen.pid, signal.SIGSTOP)
    try:
        for node in nodes:
            fail = node.expect("fail", timeout_s=20)
            assert fail["is_restartable"]
            assert "has not reached the master at" in fail["message"]
            assert "timeouts.master_lost_timeout_s" in fail["message"]
    finally:
        os.kill(master.popen.pid, signal.SIGCONT)
