"""Training across two hosts, a JobManager on a third; the link of one is cut in the middle."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import until

from .sites import FLINK_LIMIT_S, SLACK_S, Site, open_site
from .standalone import Standalone
from .system import descendants
from .test_standalone_faults import TRAIN, require_equal_to_one_process

ROWS = 1500


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("hosts")) as opened:
        yield opened


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("is_of_the_master", "limit_s", "named"),
    [
        pytest.param(  # test_two_hosts_kept.py cuts a worker with a state off in CI
            False,
            3.0,
            r"worker-\d sent no heartbeat for 3\.\d s .*timeouts.heartbeat_timeout_s",
            marks=pytest.mark.long,
        ),
        (True, 60.0, r"heartbeat of TaskManager with id .* timed out"),
    ],
    ids=["a worker is cut off, headrace notices", "the master is cut off, Flink notices"],
)
def test_training_across_hosts_survives_the_cut_of_one(
    site: Site, is_of_the_master: bool, limit_s: float, named: str
) -> None:
    cluster = site.cluster
    name = f"hosts-{limit_s:.0f}"
    results, model = (cluster.folder / f"{name}-{what}" for what in ("results", "model"))
    arguments = ("--name", name, "--rows", str(ROWS), "--pause", "0.5")
    limits = ("--heartbeat-timeout", str(limit_s))
    with cluster.started(TRAIN, results.as_uri(), model, *arguments, *limits) as program:
        job = cluster.wait_for_job(name, "RUNNING")
        until(lambda: trainers(cluster, name) == 2, "training", 60, cluster.logs)
        managers = dict(zip(("left", "right"), cluster.task_managers, strict=True))
        victim = next(
            host for host, each in managers.items() if has_master(each.pid) == is_of_the_master
        )
        below = [
            each for each in descendants(managers[victim].pid) if "headrace" in each.command
        ]
        assert len(below) >= 2, "a node and its process"
        (log,) = (cluster.folder / "log").glob("*standalonesession*.log")
        before = len(log.read_text())
        site.network.cut(victim)
        try:
            until(
                lambda: re.search(named, log.read_text()[before:]) is not None,
                "notice in time",
                min(limit_s, FLINK_LIMIT_S) + SLACK_S,
                cluster.logs,
            )
            until(
                lambda: not any(each.is_alive for each in below),
                "end of what was cut off",
                FLINK_LIMIT_S + 10,
                cluster.logs,
            )
        finally:
            site.network.mend(victim)
        summary = cluster.finish(program)
    if not is_of_the_master:  # Flink's own cause may be a call that timed out a moment earlier
        assert re.search(named, json.dumps(cluster.ask(f"jobs/{job}/exceptions")))
    assert summary["rows_in"] == ROWS
    assert summary["attempt"] > 1
    assert sorted(summary["hosts"].values()) == ["left", "right"]
    require_equal_to_one_process(results, Path(model), ROWS)
    cluster.wait_for_slots()


def trainers(cluster: Standalone, name: str) -> int:
    """How many workers of the first attempt have said that they train."""
    logs = (path.read_text() for path in (cluster.folder / "log").glob("*taskexecutor*.log"))
    return sum(f"{name} attempt 1 is training" in log for log in logs)


def has_master(pid: int) -> bool:
    return any("framework.master" in each.command for each in descendants(pid))
