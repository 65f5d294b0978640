"""Nodes of one host share out the GPUs that Flink has assigned to all of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import WaitTimeoutError
from headrace.framework.jvm_lines import StartLine
from headrace.framework.messages import StartProcess
from headrace.framework.node.gpu import GpuLease, take_gpu
from headrace.framework.node.life_planner import LifePlanner
from headrace.framework.spec import NodeSpec
from tests.unit.role.doubles import FakeClock

OURS = [f"test-{os.getpid()}-{n}" for n in range(2)]
_HOLD = """
import sys, time
from headrace.framework.node.gpu import take_gpu
lease = take_gpu(sys.argv[1:], 5, wait=time.sleep)
print(lease.index, flush=True)
time.sleep(60)
"""


def take(assigned: list[str]) -> GpuLease:
    """What is free now."""
    lease = take_gpu(assigned, 0, wait=lambda _: None)
    assert lease is not None
    return lease


def test_each_gets_the_first_that_is_free_and_a_free_one_is_found_again() -> None:
    with take(OURS) as first, take(OURS) as second:
        assert [first.index, second.index] == OURS
        first.close()
        with take(OURS) as third:
            assert third.index == OURS[0]


def test_when_none_is_free_it_waits_for_so_long_and_says_what_to_do() -> None:
    clock = FakeClock()

    def wait(seconds: float) -> None:
        clock.now += seconds

    with take(OURS), take(OURS):
        told = rf"Waited 3.0 s for a GPU: all .* \({OURS[0]}, {OURS[1]}\) are taken"
        with pytest.raises(WaitTimeoutError, match=told):
            take_gpu(OURS, 3, wait=wait, clock=clock)
    assert 1003 <= clock.now < 1004


def test_one_that_becomes_free_meanwhile_is_taken() -> None:
    taken = take(OURS[:1])
    lease = take_gpu(OURS[:1], 60, wait=lambda _: taken.close())
    assert lease is not None
    with lease:
        assert lease.index == OURS[0]


def test_a_life_that_waits_for_a_gpu_leaves_it_to_the_next_life_of_its_node() -> None:
    start = StartLine(
        job_name="job",
        role="worker",
        index=0,
        parallelism=1,
        host="127.0.0.1",
        work_dir="nowhere",
        spec_path="nowhere/spec.json",
        gpus=(OURS[0],),
    )
    planner = LifePlanner(start, NodeSpec(gpu="required"))
    first, second = (
        planner.plan(StartProcess(attempt=number, cluster={})) for number in (1, 2)
    )
    with ThreadPoolExecutor(2) as threads:
        with take(OURS):
            left = threads.submit(first.command)
            assert "CUDA_VISIBLE_DEVICES" not in left.result(10).environment
            waiting = threads.submit(second.command)
            assert not waiting.done()
        for command in (waiting.result(10), second.command()):
            assert command.environment["CUDA_VISIBLE_DEVICES"] == OURS[0]
    planner.close()
    take(OURS[:1]).close()


def test_the_death_of_a_process_frees_its_gpu() -> None:
    command = [sys.executable, "-c", _HOLD, *OURS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == OURS[0]
        with take(OURS) as second:
            assert second.index == OURS[1]
        other.send_signal(signal.SIGKILL)
        other.wait()
    with take(OURS) as lease:
        assert lease.index == OURS[0]
