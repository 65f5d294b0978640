"""How a cluster lives through losses and comes to its end, in real Flink jobs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import pytest
from pyflink.common import JobClient
from pyflink.table import DataTypes, StreamTableEnvironment, Table

import headrace.operator.job_end
from headrace.config import AMConfig, RoleConfig, TimeoutConfig
from headrace.errors import HeadraceError, JobFailedError
from headrace.framework.machine import NodeRegistered, decode_log
from headrace.operator import Cluster, JobHandle
from tests.waiting import live_until_ended, until

from .conftest import MakeEnvironment
from .processes import masters, parent_of
from .recording_node import recording_interpreter
from .test_roles import file_sink, numbers, read_json

cloudpickle.register_pickle_by_value(sys.modules[__name__])

WATCHFUL = TimeoutConfig(
    heartbeat_every_s=0.2, heartbeat_timeout_s=3.0, master_lost_timeout_s=5.0, stop_grace_s=1.0
)
"""For tests of silence alone: on a busy machine a process may be silent for a second or two."""
_NOTICE_S = 3.0
"""What may pass over the limit of a time-out: the beats between, the end of the job."""


@pytest.mark.parametrize(
    "kinds",
    [{"maker"}, {"plain", "taker"}, {"plain", "maker", "taker", "passer"}],
    ids=lambda kinds: "+".join(sorted(kinds)),
)
def test_roles_with_and_without_input_and_output_account_for_every_row(
    make_t_env: MakeEnvironment, tmp_path: Path, kinds: set[str]
) -> None:
    t_env = make_t_env(2)
    rows = 1003

    def plain(ctx: Any) -> None:
        ctx.report(roles=len(ctx.cluster))

    def maker(ctx: Any) -> None:
        start = ctx.index * rows
        for first in range(start, start + rows, 100):
            ctx.emit({"id": list(range(first, min(first + 100, start + rows)))})

    def taker(ctx: Any) -> None:
        ctx.report(total=sum(sum(batch["id"].tolist()) for batch in ctx.batches(rows=64)))

    def passer(ctx: Any) -> None:
        for batch in ctx.batches(rows=64):
            ctx.emit({"id": -batch["id"]})

    cluster = Cluster(t_env, name="kinds")
    cluster.add_am_role()
    ids = {"id": DataTypes.BIGINT()}
    out = []
    table = numbers(t_env, rows)
    if "plain" in kinds:
        cluster.add_role("plain", RoleConfig(entry=plain, parallelism=2))
    if "taker" in kinds:
        taking = RoleConfig(entry=taker, parallelism=2)
        cluster.add_role("taker", taking, input=table)
    if "maker" in kinds:
        out.append(
            cluster.add_role("maker", RoleConfig(entry=maker, parallelism=2), output=ids)
        )
    if "passer" in kinds:
        passing = RoleConfig(entry=passer, parallelism=2)
        out.append(cluster.add_role("passer", passing, input=table, output=ids))
    statements = t_env.create_statement_set()
    if out:
        file_sink(t_env, tmp_path / "out", "id BIGINT")
        for each in out:
            assert isinstance(each, Table)
            statements.add_insert("results", each)
    status = cluster.submit(statements if out else None).wait(timeout_s=100).status
    assert (status.state, status.attempt, len(status.nodes)) == ("FINISHED", 1, 2 * len(kinds))
    assert {node.state for node in status.nodes.values()} == {"finished"}
    made = list(range(2 * rows)) if "maker" in kinds else []
    passed = [-each for each in range(1, rows + 1)] if "passer" in kinds else []
    if out:
        got = sorted(row["id"] for row in read_json(tmp_path / "out"))
        assert got == sorted(made + passed)
    if "taker" in kinds:
        total = sum(status.nodes[f"taker-{index}"].report["total"] for index in range(2))
        assert total == rows * (rows + 1) / 2
    if "plain" in kinds:
        assert status.nodes["plain-1"].report == {"roles": len(kinds)}


def waits(ctx: Any) -> None:
    """Leave a mark with the pid, and wait until the test says go; read the input, if any."""
    folder = Path(ctx.options["folder"])
    mark = folder / f"{ctx.role}-{ctx.index}-{ctx.attempt}"
    mark.with_suffix(".new").write_text(str(os.getpid()))
    mark.with_suffix(".new").rename(mark)
    until((folder / "go").exists, "leave to go on", 100)
    if ctx.input_schema is not None:
        ctx.report(rows=sum(batch.num_rows for batch in ctx.arrow_batches()))


def test_a_second_registration_restarts_the_group_once_and_the_stale_attempt_is_refused(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    t_env.get_config().set("python.executable", str(recording_interpreter(tmp_path)))
    job = submit_waiting(t_env, tmp_path, workers=2)
    until(lambda: marks(tmp_path) == {"worker-0-1", "worker-1-1"})
    until(lambda: job.status().state == "RUNNING")
    node = parent_of(int((tmp_path / "worker-0-1").read_text()))
    lines = map(json.loads, (tmp_path / f"lines-{node}").read_text().splitlines())
    (master,) = [line for line in lines if line["type"] == "master"]
    known = {"master": master, "registration": registration("worker-0")}
    (tmp_path / "known.json").write_text(json.dumps(known))
    program = Path(__file__).with_name("second_registration.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "known.json")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "again": [1, 1, 1],
        "second": 1,
        "stale": "StaleAttemptError",
        "late": "StaleAttemptError",
    }
    until(lambda: {"worker-0-2", "worker-1-2"} <= marks(tmp_path))
    (tmp_path / "go").touch()
    status = job.wait(timeout_s=60).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 2, 1)
    assert marks(tmp_path) == {
        f"worker-{index}-{attempt}" for index in range(2) for attempt in (1, 2)
    }


def test_a_silent_node_is_noticed_in_time_and_the_group_restarts(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    job = submit_waiting(t_env, tmp_path, workers=2, timeouts=WATCHFUL)
    until(lambda: marks(tmp_path) == {"worker-0-1", "worker-1-1"})
    node = parent_of(int((tmp_path / "worker-1-1").read_text()))
    os.kill(node, signal.SIGSTOP)
    stopped_at = time.monotonic()
    until(lambda: job.status().state == "RECOVERING")
    assert time.monotonic() - stopped_at < WATCHFUL.heartbeat_timeout_s + _NOTICE_S
    reason = job.status().reason or ""
    assert "Node worker-1 sent no heartbeat for" in reason
    assert "limit 3.0 s, set by `timeouts.heartbeat_timeout_s`" in reason
    os.kill(node, signal.SIGCONT)
    until(lambda: {"worker-0-2", "worker-1-2"} <= marks(tmp_path))
    (tmp_path / "go").touch()
    status = job.wait(timeout_s=60).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 2, 1)


def test_a_silent_node_of_a_role_with_input_fails_the_job_with_name_and_setting(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    job = submit_waiting(t_env, tmp_path, workers=2, rows=10, timeouts=WATCHFUL)
    until(lambda: marks(tmp_path) == {"worker-0-1", "worker-1-1"})
    os.kill(parent_of(int((tmp_path / "worker-1-1").read_text())), signal.SIGSTOP)
    stopped_at = time.monotonic()
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=60)
    ends_s = _NOTICE_S + WATCHFUL.stop_grace_s + 5.0
    assert time.monotonic() - stopped_at < WATCHFUL.heartbeat_timeout_s + ends_s
    said = re.search(r"Node worker-1 sent no heartbeat for (\d+\.\d) s", caught.value.cause)
    assert said is not None
    assert float(said[1]) < WATCHFUL.heartbeat_timeout_s + _NOTICE_S
    assert "limit 3.0 s, set by `timeouts.heartbeat_timeout_s`" in caught.value.cause


def test_a_finished_node_stays_finished_and_in_the_cluster_through_a_later_restart(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        (Path(folder) / f"worker-{ctx.index}-{ctx.attempt}").touch()
        if ctx.index == 0:
            return
        until((Path(folder) / "go").exists, "leave to go on", 100)
        if ctx.attempt == 1:
            msg = "once"
            raise RuntimeError(msg)
        ctx.report(hosts=len(ctx.cluster["worker"]), parallelism=ctx.parallelism)

    cluster = Cluster(t_env, name="finished")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry, parallelism=2))
    job = cluster.submit()
    until(
        lambda: (
            "worker-0" in (nodes := job.status().nodes)
            and nodes["worker-0"].state == "finished"
        )
    )
    (tmp_path / "go").touch()
    status = job.wait(timeout_s=60).status
    assert marks(tmp_path) == {"worker-0-1", "worker-1-1", "worker-1-2"}
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 2, 1)
    assert {node.state for node in status.nodes.values()} == {"finished"}
    assert status.nodes["worker-1"].report == {"hosts": 2, "parallelism": 2}


def test_a_killed_master_comes_back_and_healthy_processes_go_on(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    job = submit_waiting(t_env, tmp_path, workers=2, rows=1000, helpers=1)
    until(lambda: marks(tmp_path) == {"worker-0-1", "worker-1-1", "helper-0-1"})
    until(lambda: job.status().state == "RUNNING")
    pids = {name: (tmp_path / name).read_text() for name in marks(tmp_path)}
    (first,) = masters()
    os.kill(first, signal.SIGKILL)
    until(lambda: masters() not in ([], [first]))
    (tmp_path / "go").touch()
    status = job.wait(timeout_s=60).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 1, 0)
    assert {name: (tmp_path / name).read_text() for name in marks(tmp_path)} == pids
    rows = [status.nodes[f"worker-{index}"].report["rows"] for index in range(2)]
    assert (sum(rows), status.rows_in) == (1000, 1000)


def test_a_master_that_stops_answering_fails_the_job_with_the_setting(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    job = submit_waiting(t_env, tmp_path, workers=1, rows=10, timeouts=WATCHFUL)
    until(lambda: marks(tmp_path) == {"worker-0-1"})
    (master,) = masters()
    os.kill(master, signal.SIGSTOP)
    stopped_at = time.monotonic()
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=60)
    limit_s = 2 * WATCHFUL.heartbeat_timeout_s + WATCHFUL.master_lost_timeout_s
    assert time.monotonic() - stopped_at < limit_s + _NOTICE_S
    assert "Node worker-0 has not reached the master at" in caught.value.cause
    assert "limit 5.0 s, set by `timeouts.master_lost_timeout_s`" in caught.value.cause


def test_cancel_between_two_of_many_failures_ends_within_5_s(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        (Path(folder) / f"worker-{ctx.index}-{ctx.attempt}").touch()
        msg = "as always"
        raise RuntimeError(msg)

    cluster = Cluster(t_env, name="always")
    cluster.add_am_role(AMConfig(max_restarts=1000))
    cluster.add_role("worker", RoleConfig(entry=entry))
    job = cluster.submit()
    until(lambda: "worker-0-3" in marks(tmp_path))
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30, show_progress=False)
    assert time.monotonic() - started_at < 5


def test_a_job_that_is_unknown_has_ended_and_one_whose_cluster_is_gone_may_go_on(
    classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime, client = classes.org.apache.flink.runtime, classes.org.apache.flink.client
    ports = classes.org.apache.flink.configuration.Configuration()
    ports.setString("rest.bind-port", "0")
    builder = runtime.minicluster.MiniClusterConfiguration.Builder()
    settings = builder.setConfiguration(ports).build()
    cluster = runtime.minicluster.MiniCluster(settings)
    cluster.start()
    try:
        address = cluster.getRestAddress().get()
        options = classes.org.apache.flink.configuration.Configuration()
        options.setString("rest.address", address.getHost())
        options.setString("rest.port", str(address.getPort()))
        options.setString("rest.retry.delay", "1 ms")
        factory = client.deployment.StandaloneClientFactory()
        id_ = client.deployment.StandaloneClusterId.getInstance()
        provider = factory.createClusterDescriptor(options).retrieve(id_)
        loader = classes.Thread.currentThread().getContextClassLoader()
        j_client = client.deployment.ClusterClientJobClientAdapter(
            provider, classes.org.apache.flink.api.common.JobID(), loader
        )
        job = JobHandle(JobClient(j_client), job_name="lost", am_uid="headrace-lost-am")
        job.cancel()
        monkeypatch.setattr(headrace.operator.job_end, "_UNKNOWN_S", 1.0)
        with pytest.raises(JobFailedError, match=r"no longer knows it"):
            job.wait(timeout_s=20, show_progress=False)
    finally:
        cluster.close()
    with pytest.raises(HeadraceError, match=r"(?s)Job 'lost' was not cancelled: .*refused"):
        job.cancel()


def test_stop_job_ends_every_role_with_success(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        try:
            if ctx.role == "chief":
                ctx.lookup("ready-0", 60)
                ctx.lookup("ready-1", 60)
                ctx.stop_job("the loss is low enough")
            else:
                ctx.publish(f"ready-{ctx.index}", "yes")
            live_until_ended()
        finally:
            ctx.report(cleaned_up=1)

    cluster = Cluster(t_env, name="stops")
    cluster.add_am_role()
    cluster.add_role("chief", RoleConfig(entry=entry))
    cluster.add_role("worker", RoleConfig(entry=entry, parallelism=2), input=numbers(t_env, 10))
    status = cluster.submit().wait(timeout_s=60).status
    assert (status.state, status.attempt) == ("FINISHED", 1)
    assert status.reason == "chief-0 asked to stop: the loss is low enough"
    assert {name: node.report for name, node in status.nodes.items()} == {
        "chief-0": {"cleaned_up": 1},
        "worker-0": {"cleaned_up": 1},
        "worker-1": {"cleaned_up": 1},
    }


def submit_waiting(
    t_env: StreamTableEnvironment,
    folder: Path,
    *,
    workers: int,
    rows: int = 0,
    helpers: int = 0,
    timeouts: TimeoutConfig | None = None,
) -> JobHandle:
    """Submit a job whose processes leave a mark and wait for the file "go"."""
    cluster = Cluster(t_env, name="waits")
    cluster.add_am_role(AMConfig(timeouts=timeouts or TimeoutConfig()))
    options = {"folder": str(folder)}
    worker = RoleConfig(entry=waits, parallelism=workers, options=options)
    cluster.add_role("worker", worker, input=numbers(t_env, rows) if rows else None)
    if helpers:
        cluster.add_role(
            "helper", RoleConfig(entry=waits, parallelism=helpers, options=options)
        )
    return cluster.submit()


def registration(node: str) -> dict[str, Any]:
    """The last registration of a node in the event log of this session's master."""
    (master,) = masters()
    log = Path(f"/proc/{master}/cwd/events-0.jsonl").read_bytes()
    _, events = decode_log(log.splitlines())
    found: list[dict[str, Any]] = [
        msgspec.to_builtins(event)
        for event in events
        if isinstance(event, NodeRegistered) and event.node == node
    ]
    return found[-1]


def marks(folder: Path) -> set[str]:
    """The names of the marks, ROLE-INDEX-ATTEMPT, that processes have left."""
    return {path.name for path in folder.iterdir() if path.name.count("-") == 2}
