"""TensorBoard as a role of a Flink job: at the address that the status shows."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import cloudpickle
from pyflink.table import StreamTableEnvironment

from headrace.config import AMConfig, RoleConfig
from headrace.operator import Cluster
from tests.waiting import until

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def page(url: str) -> str | None:
    """Return what the URL answers; None while nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return bytes(answer.read()).decode()
    except (ConnectionError, TimeoutError, urllib.error.URLError):
        return None


def test_it_is_served_where_the_status_says_and_ends_with_the_job(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"

    def worker(ctx: Any) -> None:
        until(seen.exists, "the end of the test's look")

    cluster = Cluster(t_env, name="shown")
    cluster.add_am_role(AMConfig(state_machine="tensorflow"))
    cluster.add_role("worker", RoleConfig(entry=worker))
    board = RoleConfig(runner="tensorboard", options={"log_dir": str(tmp_path / "logs")})
    cluster.add_role("tensorboard", board)
    handle = cluster.submit()
    nodes = until(lambda: handle.status().nodes if handle.status().state == "RUNNING" else None)
    url = nodes["tensorboard-0"].url
    assert url == f"http://{nodes['tensorboard-0'].address}"
    assert nodes["worker-0"].address is None
    until(lambda: page(url) is not None, "TensorBoard to answer")
    assert "<title>TensorBoard</title>" in str(page(url))
    seen.touch()
    result = handle.wait(timeout_s=60)
    assert result.status.nodes["tensorboard-0"].state == "stopped"
    assert page(url) is None
