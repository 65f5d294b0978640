"""TensorBoard as a role: the real program, on the port of its node."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from headrace.framework import NodeSpec
from tests.faults.framework.conftest import QUICK
from tests.waiting import until

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Child, Cluster

START_S = 40.0  # TensorBoard imports for seconds on a busy machine
ROLE = "tensorboard"
SRC = Path(__file__).resolve().parents[3] / "src"


def board_spec(log_dir: Path, **environment: str) -> NodeSpec:
    return NodeSpec(
        runner="tensorboard",
        has_port=True,
        url_scheme="http",
        options={"log_dir": str(log_dir)},
        environment=environment,
        timeouts=QUICK,
    )


def page(url: str) -> str | None:
    """Return what the URL answers; None while nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=START_S) as answer:
            return bytes(answer.read()).decode()
    except (ConnectionError, urllib.error.URLError):
        return None


def url_of(master: Child) -> str:
    url: str = master.expect_state("RUNNING")["nodes"][f"{ROLE}-0"]["url"]
    return url


@pytest.fixture
def log_dir(tmp_path: Path) -> Path:
    """A directory with one run of one event."""
    folder = tmp_path / "logs"
    run = folder / "run_7"
    run.mkdir(parents=True)
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (run / "events.out.tfevents.1.host").open("wb") as file:
        RecordWriter(file).write(
            Event(wall_time=1.0, file_version="brain.Event:2").SerializeToString()
        )
    return folder


def test_it_answers_on_the_announced_address_without_tensorflow(
    cluster: Cluster, log_dir: Path
) -> None:
    master = cluster.master(others={ROLE: 1})
    cluster.node(sleeper, has_master=True)
    board = cluster.node(role=ROLE, spec=board_spec(log_dir), has_master=True)
    pid = board.expect("process_started")["pid"]
    url = url_of(master)
    until(lambda: page(url) is not None, "TensorBoard to answer", START_S, lambda: board.log)
    assert "<title>TensorBoard</title>" in str(page(url))
    until(lambda: "run_7" in str(page(f"{url}/data/runs")), "the run to be seen", START_S)
    assert "tensorflow" not in Path(f"/proc/{pid}/maps").read_text()


def sleeper(spec: object, link: object) -> None:
    signal.pause()


def test_it_is_killed_and_comes_back_at_the_same_address_and_stops_in_time(
    cluster: Cluster, log_dir: Path, tmp_path: Path
) -> None:
    master = cluster.master(machine="tensorflow", others={ROLE: 1})
    waits = tmp_path / "waits"
    worker = cluster.node(ends_at_sigusr1(waits), has_master=True)
    board = cluster.node(role=ROLE, spec=board_spec(log_dir), has_master=True)
    pid = board.expect("process_started")["pid"]
    url = url_of(master)
    until(lambda: page(url) is not None, "TensorBoard to answer", START_S, lambda: board.log)
    os.kill(pid, signal.SIGKILL)
    again = board.expect("process_started")
    assert (again["attempt"], again["life"]) == (1, 1)
    until(lambda: page(url) is not None, "TensorBoard to answer", START_S, lambda: board.log)
    until(waits.exists, "the worker to wait for its signal", START_S, lambda: worker.log)
    os.kill(worker.expect("process_started")["pid"], signal.SIGUSR1)
    assert master.expect("finish")["reason"] == "every deciding process has finished"
    assert board.expect("process_ended")["outcome"] == "stopped"
    assert page(url) is None


def test_where_it_is_missing_it_says_so_and_the_job_goes_on(
    cluster: Cluster, log_dir: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "path" / "tensorboard"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ModuleNotFoundError('tensorboard is not here')")
    spec = board_spec(log_dir, PYTHONPATH=f"{broken.parent}{os.pathsep}{SRC}")
    master = cluster.master(machine="tensorflow", others={ROLE: 1})
    waits = tmp_path / "waits"
    worker = cluster.node(ends_at_sigusr1(waits), has_master=True)
    board = cluster.node(role=ROLE, spec=spec, has_master=True)
    failure = board.expect("process_ended")["failure"]
    assert failure["message"].startswith("TensorBoard cannot be started: tensorboard is not")
    assert "pip install tensorboard" in failure["message"]
    until(waits.exists, "the worker to wait for its signal", START_S, lambda: worker.log)
    os.kill(worker.expect("process_started")["pid"], signal.SIGUSR1)
    master.expect("finish")
    assert not [line for line in board.seen if line.get("life") == 1]


def ends_at_sigusr1(waits: Path) -> Callable[..., None]:
    """Ends with success at SIGUSR1; `waits` is there once the signal would not kill it."""

    def entry(spec: object, link: object) -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        waits.touch()
        signal.sigwait({signal.SIGUSR1})

    return entry
