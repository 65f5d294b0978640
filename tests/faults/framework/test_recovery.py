"""Failures in a group: restarts, lost nodes, a lost master."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.config import TimeoutConfig
from headrace.framework import NodeSpec
from headrace.framework.machine import ALL_FINISH, decode_log, replay
from tests.waiting import always, until

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Cluster

QUICK = TimeoutConfig(
    heartbeat_every_s=0.1,
    heartbeat_timeout_s=2.0,
    master_lost_timeout_s=20.0,
    stop_grace_s=1.0,
    stop_timeout_s=5.0,
)


def sleeper() -> Callable[..., None]:
    def entry(spec: Any, link: Any) -> None:
        import signal

        signal.pause()

    return entry


def fails_until(attempt: int) -> Callable[..., None]:
    """Worker 1 raises before `attempt`; worker 0 waits for a value of worker 1."""

    def entry(spec: Any, link: Any) -> None:
        if spec.index == 1:
            if spec.attempt < attempt:
                msg = f"boom in attempt {spec.attempt}"
                raise ValueError(msg)
            link.publish("hello", f"from attempt {spec.attempt}")
        assert link.lookup("hello", 30.0) == f"from attempt {attempt}"

    return entry


@pytest.mark.parametrize("machine", ["all_finish", "pytorch"])
def test_a_worker_that_fails_twice_and_then_succeeds_lets_the_job_succeed(
    cluster: Cluster, machine: str
) -> None:
    master = cluster.master(parallelism=2, machine=machine)
    nodes = cluster.nodes(fails_until(3), 2)
    assert master.expect("finish", 30)["reason"] == "every process has finished"
    status = [line["status"] for line in master.seen if line["type"] == "status"][-1]
    assert (status["state"], status["attempt"], status["restarts"]) == ("FINISHED", 3, 2)
    wanted = [
        [(1, "stopped"), (2, "stopped"), (3, "finished")],
        [(1, "failed"), (2, "failed"), (3, "finished")],
    ]

    def outcomes() -> list[list[tuple[int, str]]]:
        return [
            [
                (line["attempt"], line["outcome"])
                for line in node.seen
                if line["type"] == "process_ended"
            ]
            for node in nodes
        ]

    # The lines of nodes come by other pipes than the master's.
    until(lambda: outcomes() == wanted, "the ends", 10, lambda: str(outcomes()))


def test_a_worker_that_always_fails_fails_the_job_with_its_traceback(cluster: Cluster) -> None:
    master = cluster.master(parallelism=2, max_restarts=1)
    cluster.nodes(fails_until(99), 2)
    fail = master.expect("fail", 30)
    assert not fail["is_restartable"]
    assert fail["message"].startswith("worker-1: ValueError: boom in attempt 2")
    assert "raise ValueError(msg)" in fail["message"]
    assert "restarted 1 times before (limit set by `am.max_restarts`)" in fail["message"]


def test_a_failure_in_stream_mode_fails_the_job_at_once_and_may_be_restarted(
    cluster: Cluster,
) -> None:
    master = cluster.master(parallelism=2, has_input=True)
    cluster.nodes(fails_until(99), 2)
    fail = master.expect("fail")
    assert fail["is_restartable"]
    assert fail["message"].startswith("worker-1: ValueError: boom in attempt 1")


def test_stop_job_ends_every_process_with_success(cluster: Cluster) -> None:
    def entry(spec: Any, link: Any) -> None:
        import signal

        if spec.index == 0:
            link.stop_job("the loss is low enough")
        signal.pause()

    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(entry, 2)
    reason = master.expect("finish")["reason"]
    assert reason == "worker-0 asked to stop: the loss is low enough"
    for node in nodes:
        assert node.expect("process_ended")["outcome"] == "stopped"


def test_a_silent_node_is_noticed_in_time_and_the_group_restarts_when_it_is_back(
    cluster: Cluster,
) -> None:
    master = cluster.master(parallelism=2, timeouts=QUICK)
    nodes = cluster.nodes(sleeper(), 2, spec=NodeSpec(timeouts=QUICK))
    for node in nodes:
        node.expect("process_started")
    os.kill(nodes[0].popen.pid, signal.SIGSTOP)
    status = master.expect_state("RECOVERING", timeout_s=8.0)
    assert "worker-0" in status["reason"]
    assert "timeouts.heartbeat_timeout_s" in status["reason"]
    os.kill(nodes[0].popen.pid, signal.SIGCONT)
    for node in nodes:
        assert node.expect("process_started")["attempt"] == 2


def test_nodes_that_do_not_come_fail_the_job_with_the_setting(cluster: Cluster) -> None:
    master = cluster.master(parallelism=2, timeouts=replace(QUICK, gather_timeout_s=0.5))
    cluster.node(sleeper(), index=1, parallelism=2, has_master=True)
    fail = master.expect("fail")
    assert not fail["is_restartable"]
    assert "timeouts.gather_timeout_s" in fail["message"]


def test_a_node_that_is_started_again_restarts_the_group_exactly_once(
    cluster: Cluster, wait_gone: Callable[..., None]
) -> None:
    master = cluster.master(parallelism=2)
    nodes = cluster.nodes(sleeper(), 2)
    pid = nodes[0].expect("process_started")["pid"]
    nodes[1].expect("process_started")
    nodes[0].popen.kill()
    wait_gone(pid)
    again = cluster.node(sleeper(), index=0, parallelism=2, has_master=True)
    assert again.expect("process_started")["attempt"] == 2
    assert nodes[1].expect("process_started")["attempt"] == 2
    status = master.expect("status", until=lambda line: line["status"]["attempt"] == 2)
    assert status["status"]["restarts"] == 1


def test_a_restarted_master_finds_the_running_processes_and_leaves_them_alone(
    cluster: Cluster, tmp_path: Path, wait_for_file: Callable[..., str]
) -> None:
    def entry(spec: Any, link: Any) -> None:
        from pathlib import Path

        link.publish(f"name-{spec.index}", f"of {spec.index}")
        link.report({"ready": 1.0})
        if spec.index == 0:
            assert link.lookup("go", 60.0) == "now"
            found = link.lookup("name-1", 60.0)  # published before the master was killed
            (Path(spec.options["place"]) / "found").write_text(found)
        else:
            until((Path(spec.options["place"]) / "go").exists)
            link.publish("go", "now")

    spec = NodeSpec(timeouts=QUICK, options={"place": str(tmp_path)})
    first = cluster.master(parallelism=2)
    nodes = cluster.nodes(entry, 2, spec=spec)
    for node in nodes:
        node.expect("report")
    first.popen.kill()
    first.wait(3)
    second = cluster.master(parallelism=2)
    for node in nodes:
        cluster.introduce(node)
    second.expect_state("RUNNING")
    (tmp_path / "go").touch()
    second.expect("finish")
    assert (tmp_path / "found").read_text() == "of 1"
    for node in nodes:
        started = [line for line in node.seen if line["type"] == "process_started"]
        assert len(started) == 1
        assert node.expect("process_ended")["attempt"] == 1


def test_a_restarted_master_hears_again_that_a_process_wants_a_savepoint(
    cluster: Cluster,
) -> None:
    """Also from one that has said it once, and goes on or has returned."""

    def entry(spec: Any, link: Any) -> None:
        import signal

        link.stop_job("seen enough", with_savepoint=True)
        if spec.index == 0:
            signal.pause()

    wish = ("worker-0 asked to stop: seen enough", "worker-1 asked to stop: seen enough")
    first = cluster.master(parallelism=2)
    nodes = cluster.nodes(entry, 2, spec=NodeSpec(timeouts=QUICK))
    first.expect("status", until=lambda line: line["status"].get("savepoint_wish") in wish)
    nodes[1].expect("process_ended")
    first.popen.kill()
    first.wait(3)
    second = cluster.master(parallelism=2)
    cluster.introduce(nodes[1])
    cluster.introduce(nodes[0])
    second.expect("status", until=lambda line: line["status"].get("savepoint_wish") in wish)


def test_a_process_that_ends_while_there_is_no_master_is_not_forgotten(
    cluster: Cluster,
) -> None:
    first = cluster.master(parallelism=1)
    (node,) = cluster.nodes(sleeper(), 1)
    pid = node.expect("process_started")["pid"]
    first.popen.kill()
    first.wait(3)
    os.kill(pid, signal.SIGKILL)
    node.expect("process_ended")
    second = cluster.master(parallelism=1)
    cluster.introduce(node)
    status = second.expect("status", until=lambda line: line["status"]["attempt"] == 2)
    assert status["status"]["restarts"] == 1
    assert node.expect("process_started")["attempt"] == 2


def test_what_a_process_reported_before_the_master_was_lost_is_in_the_last_status(
    cluster: Cluster, tmp_path: Path
) -> None:
    def entry(spec: Any, link: Any) -> None:
        until((Path(spec.options["place"]) / "go").exists)
        link.report({"loss": 0.25 + spec.index}, 100, 7)

    spec = NodeSpec(timeouts=QUICK, options={"place": str(tmp_path)})
    first = cluster.master(parallelism=2)
    nodes = cluster.nodes(entry, 2, spec=spec)
    for node in nodes:
        node.expect("process_started")
    first.popen.kill()
    first.wait(3)
    (tmp_path / "go").touch()
    for node in nodes:
        node.expect("process_ended")
    second = cluster.master(parallelism=2)
    for node in nodes:
        cluster.introduce(node)
    second.expect("finish")
    last = [line["status"] for line in second.seen if line["type"] == "status"][-1]
    assert last["state"] == "FINISHED"
    seen = {
        name: (n["report"], n["rows_in"], n["rows_out"]) for name, n in last["nodes"].items()
    }
    assert seen == {
        "worker-0": ({"loss": 0.25}, 100, 7),
        "worker-1": ({"loss": 1.25}, 100, 7),
    }


def test_a_master_that_stays_away_fails_the_node_with_the_setting(
    cluster: Cluster, wait_gone: Callable[..., None]
) -> None:
    impatient = replace(QUICK, master_lost_timeout_s=2.0)
    master = cluster.master(parallelism=1)
    (node,) = cluster.nodes(sleeper(), 1, spec=NodeSpec(timeouts=impatient))
    pid = node.expect("process_started")["pid"]
    master.popen.kill()
    fail = node.expect("fail")
    assert fail["is_restartable"]
    assert "timeouts.master_lost_timeout_s" in fail["message"]
    assert node.wait(3) == 1
    wait_gone(pid, timeout_s=0.0)


def test_a_master_that_never_answered_fails_the_node_with_the_setting(cluster: Cluster) -> None:
    impatient = NodeSpec(timeouts=replace(QUICK, master_lost_timeout_s=0.5))
    cluster.address = "127.0.0.1:1"
    node = cluster.node(sleeper(), has_master=True, spec=impatient)
    assert "timeouts.master_lost_timeout_s" in node.expect("fail")["message"]


def test_the_end_of_stdin_ends_the_master_within_two_seconds(cluster: Cluster) -> None:
    master = cluster.master(parallelism=1)
    (node,) = cluster.nodes(sleeper(), 1)
    node.expect("process_started")
    master.close_stdin()
    master.wait(2.0)


def test_a_node_that_is_stopped_right_after_its_end_tells_the_master_first(
    cluster: Cluster,
) -> None:
    master = cluster.master(parallelism=1)
    (node,) = cluster.nodes(lambda spec, link: None, 1)
    assert node.expect("process_ended")["outcome"] == "finished"
    node.send("stop", reason="at once")
    assert node.wait(3) == 0
    assert master.expect("finish")["reason"] == "every process has finished"


def test_a_master_that_stood_still_for_longer_than_the_heartbeat_limit_loses_nobody(
    cluster: Cluster, tmp_path: Path
) -> None:
    def entry(spec: Any, link: Any) -> None:
        until((Path(spec.options["place"]) / "go").exists)

    spec = NodeSpec(timeouts=QUICK, options={"place": str(tmp_path)})
    master = cluster.master(parallelism=2, timeouts=QUICK)
    nodes = cluster.nodes(entry, 2, spec=spec)
    for node in nodes:
        node.expect("process_started")
    os.kill(master.popen.pid, signal.SIGSTOP)
    always(
        lambda: all(node.popen.poll() is None for node in nodes),
        "a node ended without its master",
        for_s=3 * QUICK.heartbeat_timeout_s,
    )
    os.kill(master.popen.pid, signal.SIGCONT)
    (tmp_path / "go").touch()
    assert master.expect("finish")["reason"] == "every process has finished"
    assert {line["status"]["attempt"] for line in master.seen if line["type"] == "status"} == {
        1
    }
    for node in nodes:
        assert node.expect("process_ended")["outcome"] == "finished"


def test_the_event_log_of_a_master_replays_to_the_state_that_it_had(
    cluster: Cluster, tmp_path: Path
) -> None:
    master = cluster.master(parallelism=2)
    cluster.nodes(fails_until(2), 2)
    master.expect("finish", 30)
    lines = (tmp_path / "master-0" / "events-0.jsonl").read_bytes().splitlines()
    again = replay(ALL_FINISH, *decode_log(lines))
    assert (again.job.state.value, again.job.attempt) == ("FINISHED", 2)


def test_reports_of_the_processes_are_in_the_status(cluster: Cluster) -> None:
    def entry(spec: Any, link: Any) -> None:
        import signal

        for _ in range(3):  # the same is a sign of life as well
            link.report({"loss": 0.25}, 100, 7)
        link.publish("all", "said")
        signal.pause()

    master = cluster.master(parallelism=1)
    cluster.nodes(entry, 1)
    line = master.expect("status", until=lambda line: _progress(line["status"]) == 3)
    assert line["status"]["nodes"]["worker-0"] == {
        "state": "running",
        "host": "127.0.0.1",
        "address": None,
        "url": None,
        "rows_in": 100,
        "rows_out": 7,
        "progress": 3,
        "report": {"loss": 0.25},
        "attempt": 1,
        "life": 0,
    }


def _progress(status: dict[str, Any]) -> int:
    return sum(node["progress"] for node in status["nodes"].values())


def test_nothing_but_the_protocol_is_on_stdout(cluster: Cluster) -> None:
    def entry(spec: Any, link: Any) -> None:
        os.write(1, b'{"type": "fail", "message": "not me", "is_restartable": false}\n')

    master = cluster.master(parallelism=1)
    (node,) = cluster.nodes(entry, 1)
    assert node.expect("process_ended")["outcome"] == "finished"
    master.expect("finish")
    assert "fail" not in {line["type"] for line in (*node.seen, *master.seen)}
    assert json.loads(node.log.splitlines()[-2])["message"] == "not me"
