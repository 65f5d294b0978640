"""How the operators of the JVM start and end their children, with scripted children."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
from pyflink.table import StreamTableEnvironment

from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from tests.waiting import until

from .conftest import MakeEnvironment
from .scripted_cluster import ScriptedCluster

RETRIES = {
    "restart__strategy_type": "fixed-delay",
    "restart__strategy_fixed__delay_attempts": "2",
    "restart__strategy_fixed__delay_delay": "100 ms",
}


@pytest.mark.parametrize("chaining", ["true", "false"])
def test_the_control_stream_ends_when_the_master_says_finish(
    make_t_env: MakeEnvironment, tmp_path: Path, chaining: str
) -> None:
    t_env = make_t_env(pipeline_operator__chaining_enabled=chaining)
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 3})
    cluster.add(parallelism=2)
    cluster.add(role="ps")
    cluster.submit().wait(timeout_s=60, show_progress=False)
    start = cluster.starts("worker")[0]
    assert (start["parallelism"], start["deployment"], start["queue_socket"]) == (2, 0, None)
    assert start["host"] == "localhost"
    assert start["modes"] == ["0o700", "0o600", "0o600"]
    assert not Path(start["work_dir"]).exists()
    master = cluster.starts("am")[0]
    for node in ("worker-0", "worker-1", "ps-0"):
        (control,) = cluster.controls(node)
        assert (control["token"], control["attempt"]) == (master["token"], 1)


def test_a_killed_master_comes_back_and_every_node_learns_its_new_address(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 2, "dies": 2})
    cluster.add(parallelism=2)
    cluster.submit().wait(timeout_s=60, show_progress=False)
    masters = cluster.starts("am")
    assert [each["attempt"] for each in masters] == [1, 1, 1]
    assert len({each["token"] for each in masters}) == 1
    assert len({each["address"] for each in cluster.controls("worker-1")}) == 3
    assert len(cluster.starts("worker")) == 2


def test_a_master_that_dies_too_often_fails_the_job_with_its_last_words(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 9, "dies": 2}, max_master_restarts=1)
    cluster.add(parallelism=2)
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=60, show_progress=False)
    assert "SIGKILL" in caught.value.cause
    assert "the master is about to die" in caught.value.cause
    assert "am.max_master_restarts" in caught.value.cause


@pytest.mark.parametrize(("is_fatal", "deployments"), [(True, 1), (False, 3)])
def test_flink_retries_what_a_restart_may_mend_and_nothing_else(
    make_t_env: MakeEnvironment, tmp_path: Path, is_fatal: bool, deployments: int
) -> None:
    t_env = make_t_env(**RETRIES)
    am = {"fails": "worker-0: the traceback", "is_fatal": is_fatal}
    cluster = ScriptedCluster(t_env, tmp_path, am=am)
    cluster.add()
    cluster.add(role="ps", parallelism=2)
    with pytest.raises(JobFailedError, match="worker-0: the traceback"):
        cluster.submit().wait(timeout_s=60, show_progress=False)
    masters = cluster.starts("am")
    assert [each["deployment"] for each in masters] == [*range(deployments)]
    assert [each["attempt"] for each in masters] == [*range(1, deployments + 1)]
    assert len({each["token"] for each in masters}) == deployments
    assert {each["deployment"] for each in cluster.starts("ps")} == {*range(deployments)}


def test_cancel_ends_a_node_that_ignores_term_and_its_process_within_5_s(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(sleeps=True, ignores_stop=True)
    job = cluster.submit()
    pid_file = tmp_path / "pid-worker-0"
    until(lambda: pid_file.exists() and pid_file.read_text() != "")
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=20, show_progress=False)
    assert time.monotonic() - started_at < 5
    until(lambda: not is_running(int(pid_file.read_text())), limit_s=3)


def test_cancel_does_not_wait_for_a_node_that_is_frozen(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    grace = TimeoutConfig(stop_grace_s=60)
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1}, timeouts=grace)
    cluster.add(sleeps=True)
    job = cluster.submit()
    pid_file = tmp_path / "pid-worker-0"
    until(lambda: pid_file.exists() and pid_file.read_text() != "")
    process = int(pid_file.read_text())
    node = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(node, signal.SIGSTOP)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=50, show_progress=False)
    assert time.monotonic() - started_at < 5
    until(lambda: not is_running(node) and not is_running(process), limit_s=3)


def test_a_master_that_never_listens_fails_the_job_at_the_gather_limit(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**RETRIES, execution_checkpointing_interval="200 ms")
    limits = TimeoutConfig(gather_timeout_s=3, stop_grace_s=0.5)
    cluster = ScriptedCluster(t_env, tmp_path, am={"listen_after_s": 99}, timeouts=limits)
    cluster.add(parallelism=2)
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=30, show_progress=False)
    assert "gather_timeout_s" in caught.value.cause
    assert "The master process has not reported yet" in caught.value.cause
    assert "Needed: 2 task slots" in caught.value.cause
    assert "The test offers what it offers." in caught.value.cause
    assert len(cluster.starts("am")) == 1


def test_who_is_missing_at_the_gather_limit_is_what_the_master_says(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """It knows how many run: Flink's adaptive scheduler may start fewer than planned."""
    limits = TimeoutConfig(gather_timeout_s=3, stop_grace_s=0.5)
    gathers = {"registered": 1, "expected": 13, "missing": ["worker-1", "ps-0"]}
    cluster = ScriptedCluster(make_t_env(), tmp_path, am={"gathers": gathers}, timeouts=limits)
    cluster.add(parallelism=2, sleeps=True)
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=30, show_progress=False)
    text = "Registered: 1 of 13 nodes, missing: worker-1, ps-0 and 10 more. Needed: 2 task"
    assert text in caught.value.cause


def test_requirements_that_pip_cannot_install_fail_the_job_with_its_words(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-package-anywhere==1.0\n")
    (tmp_path / "cache").mkdir()
    t_env.set_python_requirements(str(requirements), str(tmp_path / "cache"))
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am={"ends": 1})
    cluster.add()
    with pytest.raises(JobFailedError, match="no-such-package-anywhere"):
        cluster.submit().wait(timeout_s=90, show_progress=False)


def test_cancel_kills_a_pip_that_still_runs(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    interpreter = tmp_path / "python"
    interpreter.write_text(
        f'#!/bin/sh\nif [ "$2" != pip ]; then exec {sys.executable} "$@"; fi\n'
        f"sleep 1000 & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait\n"
    )
    interpreter.chmod(0o700)
    (tmp_path / "requirements.txt").write_text("anything\n")
    t_env.get_config().set("python.executable", str(interpreter))
    t_env.set_python_requirements(str(tmp_path / "requirements.txt"))
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am={"ends": 1})
    cluster.add()
    job = cluster.submit()
    until(pid_file.exists)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=20, show_progress=False)
    assert time.monotonic() - started_at < 5
    until(lambda: not is_running(int(pid_file.read_text())), limit_s=5)


def test_two_clusters_of_one_job_do_not_see_each_other(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    first = ScriptedCluster(t_env, tmp_path / "a", am={"ends": 2}, name="first")
    second = ScriptedCluster(t_env, tmp_path / "b", am={"ends": 1, "dies": 1}, name="second")
    first.add(parallelism=2)
    second.add()
    first.submit().wait(timeout_s=60, show_progress=False)
    assert len(first.starts("am")) == 1
    assert len(second.starts("am")) == 2
    tokens = {each["token"] for each in second.controls("worker-0")}
    assert tokens == {second.starts("am")[0]["token"]}


def test_children_import_what_add_python_file_ships(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    shutil.copytree(Path(__file__).parent / "scripted", tmp_path / "files" / "scripted")
    t_env.add_python_file(str(tmp_path / "files"))
    marks = tmp_path / "marks"
    cluster = ScriptedCluster(t_env, marks, am={"ends": 1}, is_on_path=False)
    cluster.add()
    cluster.submit().wait(timeout_s=60, show_progress=False)
    assert (marks / "ended-worker-0").exists()


def is_running(pid: int) -> bool:
    """Whether the process lives and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z" and os.getpid() != pid
