"""Masters and nodes that hang instead of dying: noticed in a bounded time."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from headrace.framework import NodeSpec

from .conftest import QUICK, Cluster
from .test_recovery import sleeper


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
