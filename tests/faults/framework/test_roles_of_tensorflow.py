"""TensorFlow's roles as real processes: who restarts alone, with the group, who ends the job.

The entry functions are plain Python: what matters is who runs when.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from headrace.framework import NodeSpec
from tests.faults.framework.conftest import QUICK
from tests.waiting import always

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Child, Cluster

SPEC = NodeSpec(timeouts=QUICK, has_port=True)


def says_its_life() -> Callable[..., None]:
    """Reports attempt and life, and runs until it is told to end."""

    def entry(spec: Any, link: Any) -> None:
        import signal

        link.report({"attempt": spec.attempt, "life": spec.life, "port": spec.port}, 0, 0)
        signal.pause()

    return entry


def ends_when_told(key: str) -> Callable[..., None]:
    """Ends with success once somebody publishes `key`."""

    def entry(spec: Any, link: Any) -> None:
        link.lookup(key, 60.0)

    return entry


class Group:
    """One master and the nodes of all roles, with the state of their processes."""

    def __init__(
        self,
        cluster: Cluster,
        *,
        workers: int = 2,
        others: dict[str, Callable[..., None]],
        worker: Callable[..., None] | None = None,
        max_restarts: int = 2,
    ) -> None:
        self.master = cluster.master(
            machine="tensorflow",
            parallelism=workers,
            others=dict.fromkeys(others, 1),
            max_restarts=max_restarts,
        )
        self.nodes: dict[str, Child] = {}
        for index in range(workers):
            self.nodes[f"worker-{index}"] = cluster.node(
                worker or says_its_life(),
                index=index,
                parallelism=workers,
                spec=SPEC,
                has_master=True,
            )
        for role, entry in others.items():
            self.nodes[f"{role}-0"] = cluster.node(entry, role=role, spec=SPEC, has_master=True)
        self.pids = {name: self.started(name)["pid"] for name in self.nodes}

    def started(self, node: str) -> dict[str, Any]:
        return self.nodes[node].expect("process_started")

    def kill(self, node: str) -> None:
        os.kill(self.pids[node], signal.SIGKILL)

    def starts(self, node: str) -> list[tuple[int, int]]:
        """Attempt and life of every process so far."""
        lines = [each for each in self.nodes[node].seen if each["type"] == "process_started"]
        return [(each["attempt"], each["life"]) for each in lines]

    def await_status(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Return the next status, with every node in it, for which `holds`."""
        line = self.master.expect(
            "status",
            until=lambda line: (
                line["status"]["nodes"].keys() == self.nodes.keys() and holds(line["status"])
            ),
        )
        status: dict[str, Any] = line["status"]
        return status


@pytest.mark.parametrize("victim", ["worker-1", "evaluator-0"])
def test_a_killed_worker_or_helper_is_started_again_alone_on_its_port(
    cluster: Cluster, victim: str
) -> None:
    group = Group(cluster, others={"ps": says_its_life(), "evaluator": says_its_life()})
    before = group.nodes[victim].expect("report")["values"]
    group.kill(victim)
    again = group.started(victim)
    assert (again["attempt"], again["life"]) == (1, 1)
    assert again["pid"] != group.pids[victim]
    after = group.nodes[victim].expect("report")["values"]
    assert after == {**before, "life": 1}
    untouched = [node for node in group.nodes if node != victim]
    always(
        lambda: all(group.starts(node) == [(1, 0)] for node in untouched),
        "the others go on",
        for_s=1.0,
    )
    for node in untouched:
        os.kill(group.pids[node], 0)
    status = group.await_status(lambda status: status["nodes"][victim]["life"] == 1)
    assert (status["state"], status["restarts"]) == ("RUNNING", 0)


def test_a_worker_that_is_killed_too_often_fails_the_job_in_its_name(cluster: Cluster) -> None:
    group = Group(cluster, others={"ps": says_its_life()}, max_restarts=1)
    group.kill("worker-0")
    os.kill(group.started("worker-0")["pid"], signal.SIGKILL)
    fail = group.master.expect("fail")
    assert fail["message"].startswith("worker-0: The process was lost")
    assert "started again 1 times before" in fail["message"]
    assert "`am.max_restarts`" in fail["message"]
    assert not fail["is_restartable"]


def test_a_helper_that_is_killed_too_often_is_left_and_the_job_finishes(
    cluster: Cluster,
) -> None:
    def chief(spec: Any, link: Any) -> None:
        link.lookup("enough", 60.0)

    def evaluator(spec: Any, link: Any) -> None:
        import os
        import signal

        if spec.life == 1:
            link.publish("enough", "yes")
        os.kill(os.getpid(), signal.SIGKILL)

    group = Group(
        cluster,
        others={"ps": says_its_life(), "chief": chief, "evaluator": evaluator},
        max_restarts=1,
    )
    assert group.master.expect("finish")["reason"] == "every deciding process has finished"
    assert group.starts("evaluator-0") == [(1, 0), (1, 1)]
    last = [line["status"] for line in group.master.seen if line["type"] == "status"][-1]
    assert last["nodes"]["evaluator-0"]["life"] == 1
    assert not [line for line in group.master.seen if line["type"] == "fail"]


@pytest.mark.parametrize("victim", ["ps-0", "chief-0"])
def test_a_killed_ps_or_chief_restarts_the_group(cluster: Cluster, victim: str) -> None:
    group = Group(cluster, others={"ps": says_its_life(), "chief": says_its_life()})
    group.kill(victim)
    for node in group.nodes:
        again = group.started(node)
        assert (again["attempt"], again["life"]) == (2, 0)
    status = group.await_status(lambda status: status["attempt"] == 2)
    assert (status["state"], status["restarts"]) == ("RUNNING", 1)


def test_a_killed_worker_of_an_all_reduce_group_restarts_the_group(cluster: Cluster) -> None:
    group = Group(cluster, others={})
    group.kill("worker-1")
    for node in group.nodes:
        assert group.started(node)["attempt"] == 2


def test_after_a_worker_alone_the_group_can_restart_and_begins_at_life_0(
    cluster: Cluster,
) -> None:
    group = Group(cluster, others={"ps": says_its_life()})
    group.kill("worker-1")
    assert group.started("worker-1")["life"] == 1
    group.kill("ps-0")
    for node in group.nodes:
        again = group.started(node)
        assert (again["attempt"], again["life"]) == (2, 0)


def test_the_end_of_the_chief_ends_the_job_and_stops_all_others(cluster: Cluster) -> None:
    group = Group(
        cluster,
        others={
            "chief": ends_when_told("go"),
            "ps": says_its_life(),
            "evaluator": _publishes_and_stays("go"),
        },
    )
    assert group.master.expect("finish")["reason"] == "every deciding process has finished"
    for node in ("worker-0", "worker-1", "ps-0", "evaluator-0"):
        assert group.nodes[node].expect("process_ended")["outcome"] == "stopped"


def test_without_a_chief_worker_0_ends_the_job_and_failures_at_the_end_do_not_count(
    cluster: Cluster,
) -> None:
    def worker(spec: Any, link: Any) -> None:
        import signal
        import sys

        if spec.index == 0:
            link.lookup("ready", 60.0)
            return
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        link.publish("ready", "yes")
        signal.pause()

    group = Group(cluster, worker=worker, others={"ps": says_its_life()})
    group.master.expect("finish")
    assert group.nodes["worker-1"].expect("process_ended")["outcome"] == "stopped"
    assert group.starts("worker-1") == [(1, 0)]


def test_a_lone_worker_whose_node_was_frozen_goes_on_without_a_restart(
    cluster: Cluster,
) -> None:
    group = Group(cluster, others={"ps": says_its_life()})
    node = group.nodes["worker-1"].popen.pid
    os.kill(node, signal.SIGSTOP)
    status = group.await_status(lambda status: _state_of(status, "worker-1") == "lost")
    assert status["state"] == "RUNNING"
    os.kill(node, signal.SIGCONT)
    group.await_status(lambda status: _state_of(status, "worker-1") == "running")
    assert [group.starts(each) for each in group.nodes] == [[(1, 0)]] * 3


def test_a_restarted_master_takes_up_the_lives(cluster: Cluster) -> None:
    group = Group(cluster, others={"ps": says_its_life()}, max_restarts=1)
    group.kill("worker-1")
    pid = group.started("worker-1")["pid"]
    group.master.popen.kill()
    master = cluster.master(
        machine="tensorflow", parallelism=2, others={"ps": 1}, max_restarts=1
    )
    for node in group.nodes.values():
        cluster.introduce(node)
    assert master.expect_state("RUNNING")["nodes"]["worker-1"]["life"] == 1
    os.kill(pid, signal.SIGKILL)
    assert "started again 1 times before" in master.expect("fail")["message"]


def _state_of(status: dict[str, Any], node: str) -> str:
    return str(status["nodes"][node]["state"])


def _publishes_and_stays(key: str) -> Callable[..., None]:
    def entry(spec: Any, link: Any) -> None:
        import signal

        link.publish(key, "yes")
        signal.pause()

    return entry
