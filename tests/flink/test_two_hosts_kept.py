"""Trainings with a state across two hosts; the link of one is cut: exact when it is back."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Literal

import pytest

from headrace.config import TimeoutConfig
from tests.faults.chaos.jobs import Case, Places
from tests.faults.chaos.proof import require_exact_results
from tests.waiting import until

from .kept_job import KEEP, NARROW, await_kept, gone, processes, workers
from .sites import FLINK_LIMIT_S, SLACK_S, Site, open_site
from .system import descendants

_SLOT_S = 10.0  # for how long a TaskManager keeps the slots of a JobManager that it has lost
ROWS = 8_000
BEAT_LOST = r"worker-\d sent no heartbeat for 3\.\d s .*timeouts.heartbeat_timeout_s"
MANAGER_LOST = r"heartbeat of TaskManager with id .* timed out"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("hosts"), NARROW) as opened:
        yield opened


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("framework", "is_of_the_master", "limit_s", "named"),
    [
        ("pytorch", False, 3.0, BEAT_LOST),
        pytest.param("tensorflow", False, 3.0, BEAT_LOST, marks=pytest.mark.long),
        pytest.param("pytorch", True, 60.0, MANAGER_LOST, marks=pytest.mark.long),
    ],
    ids=[
        "PyTorch, a worker is cut off, headrace notices",
        "TensorFlow, the same",
        "the master is cut off, Flink notices",
    ],
)
def test_a_training_across_hosts_counts_every_row_once_after_the_cut_of_one(
    site: Site,
    framework: Literal["pytorch", "tensorflow"],
    is_of_the_master: bool,
    limit_s: float,
    named: str,
) -> None:
    """Nobody waits for `collective_timeout_s`, which is 600 s here."""
    cluster = site.cluster
    name = f"hosts-{framework}-{limit_s:.0f}"
    places = Places(cluster.folder / name)
    arguments = ("--name", name, "--rows", str(ROWS), "--heartbeat-timeout", str(limit_s))
    with cluster.started(*KEEP, places.folder, framework, *arguments) as program:
        job = cluster.wait_for_job(name, "RUNNING")
        await_kept(places, cluster.logs)
        managers = dict(zip(("left", "right"), cluster.task_managers, strict=True))
        victim = next(
            host for host, each in managers.items() if has_master(each) == is_of_the_master
        )
        below = processes(managers[victim])
        assert len(below) >= 2, "a node and its process"
        peers = [
            each for host in managers.keys() - {victim} for each in workers(managers[host])
        ]
        assert len(peers) == 1
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
                lambda: gone(peers),
                "end of the peer, which waits for the other",
                TimeoutConfig().stop_grace_s + SLACK_S,
                cluster.logs,
            )
            until(
                lambda: gone(below),
                "end of what was cut off",
                FLINK_LIMIT_S + _SLOT_S + SLACK_S,
                cluster.logs,
            )
        finally:
            site.network.mend(victim)
        (places.folder / "go").touch()
        summary = cluster.finish(program)
    if not is_of_the_master:  # Flink's own cause may be a call that timed out a moment earlier
        assert re.search(named, json.dumps(cluster.ask(f"jobs/{job}/exceptions")))
    assert summary["attempt"] > 1
    assert sorted(summary["hosts"].values()) == ["left", "right"]
    require_exact_results(Case(framework, 2, ROWS, 0), summary["reports"], places)
    cluster.wait_for_slots()


def has_master(manager: subprocess.Popen[bytes]) -> bool:
    return any("framework.master" in each.command for each in descendants(manager.pid))
