"""A node that is started before its start line, with a process that has loaded its entry."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
import pytest

from headrace.framework import NodeSpec
from headrace.framework.runner import ahead
from tests.faults.flink.sight import members
from tests.waiting import live_until_ended, until

from .conftest import QUICK

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Child, Cluster

Wait = Callable[..., None]

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Loaded:
    """An entry that leaves a note of the process that loads it."""

    def __init__(self, notes: Path, then: str = "") -> None:
        self.notes = str(notes)
        self.then = then

    def preload(self) -> None:
        Path(self.notes, f"loaded-{os.getpid()}").touch()
        if self.then == "hang":
            live_until_ended()
        if self.then == "thread":
            threading.Thread(target=live_until_ended).start()
        if self.then == "gpu":
            ahead._GPU_FILES = self.notes
            self.file = open(f"{self.notes}/gpu", "w")  # noqa: SIM115, PTH123 - held open
        if self.then in ("fail", "thread"):
            raise ImportError(self.then)

    def __call__(self, spec: Any, link: Any) -> None:
        directory = Path(spec.work_dir)
        link.report(
            {
                "pid": os.getpid(),
                "index": spec.index,
                "is_there": float(Path.cwd() == directory),
                "arguments": len(sys.argv),
                "input": len(sys.stdin.read()),
                "gpu": float(os.getenv("CUDA_VISIBLE_DEVICES", "7")),
            }
        )


def ready(node: Child) -> int:
    """Return the process of a spare once it waits."""
    pid: int = node.expect("spare", until=lambda line: line["state"] == "ready")["pid"]
    return pid


def loaders(notes: Path) -> set[int]:
    return {int(path.name.partition("-")[2]) for path in notes.glob("loaded-*")}


def runs(node: Child) -> dict[str, Any]:
    """Return what the process of the node has reported."""
    values: dict[str, Any] = node.expect("report")["values"]
    assert node.expect("process_ended")["outcome"] == "finished"
    return values


def test_the_process_that_has_loaded_the_entry_runs_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    node, start = cluster.spare(Loaded(tmp_path))
    loading = node.expect("spare")
    assert loading["state"] == "loading"
    pid = ready(node)
    assert loading["pid"] == pid
    node.send("start", **{**start, "index": 3, "parallelism": 4, "gpus": ["1"]})
    assert node.expect("spare") == {"type": "spare", "state": "taken", "pid": None}
    assert node.expect("process_started")["pid"] == pid
    values = runs(node)
    assert values == {
        "pid": pid,
        "index": 3,
        "is_there": 1,
        "arguments": 1,
        "input": 0,
        "gpu": -1,  # the role uses none, and Flink has assigned one
    }
    assert loaders(tmp_path) == {pid}
    assert f"worker-3 goes on in process {pid}" in node.log
    node.send("stop", reason="end")
    assert node.wait(3) == 0
    assert not Path(start["work_dir"]).exists()


def test_a_spare_is_no_member_of_the_job_before_it_has_its_spec(
    cluster: Cluster, tmp_path: Path
) -> None:
    def seen(*, with_spares: bool) -> list[tuple[str, bool]]:
        found = members(with_spares=with_spares)
        return sorted((each.kind, each.is_spare) for each in found)

    node, start = cluster.spare(Waiting(tmp_path))
    ready(node)
    assert seen(with_spares=True) == [("node", True), ("process", True)]
    assert seen(with_spares=False) == []
    node.send("start", **{**start, "index": 3, "parallelism": 4})
    node.expect("process_started")
    assert seen(with_spares=False) == [("node", False), ("process", False)]
    assert {each.index for each in members()} == {None, 3}
    (tmp_path / "go").touch()
    assert node.expect("process_ended")["outcome"] == "finished"


def test_a_node_that_is_told_to_start_while_it_loads_waits_for_it(
    cluster: Cluster, tmp_path: Path
) -> None:
    node, start = cluster.spare(Loaded(tmp_path))
    node.send("start", **start)
    pid = node.expect("process_started")["pid"]
    assert runs(node)["pid"] == pid
    assert loaders(tmp_path) == {pid}


class Waiting:
    """An entry that ends when the file `go` is there."""

    def __init__(self, notes: Path) -> None:
        self.notes = str(notes)

    def __call__(self, spec: Any, link: Any) -> None:
        until(Path(self.notes, "go").exists, "file go")


class Short:
    """An entry that is over at once, and leaves a note of each call."""

    def __init__(self, notes: Path) -> None:
        self.notes = str(notes)

    def __call__(self, spec: Any, link: Any) -> None:
        Path(self.notes, f"called-{os.getpid()}").touch()


def test_an_entry_that_ends_at_once_is_called_once(cluster: Cluster, tmp_path: Path) -> None:
    for _ in range(5):
        node, start = cluster.spare(Short(tmp_path))
        pid = ready(node)
        node.send("start", **start)
        assert node.expect("process_started")["pid"] == pid
        assert node.expect("process_ended")["outcome"] == "finished"
        assert [path.name for path in tmp_path.glob("called-*")] == [f"called-{pid}"]
        (tmp_path / f"called-{pid}").unlink()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_without_its_process_a_spare_node_starts_another(
    cluster: Cluster, tmp_path: Path, number: signal.Signals, wait_gone: Wait
) -> None:
    node, start = cluster.spare(Loaded(tmp_path))
    pid = ready(node)
    os.kill(pid, number)
    if number is not signal.SIGSTOP:
        assert node.expect("spare") == {"type": "spare", "state": "ended", "pid": pid}
    node.send("start", **start)
    other = node.expect("process_started")["pid"]
    assert other != pid
    assert runs(node)["pid"] == other
    wait_gone(pid)


def test_a_process_that_never_loads_its_entry_is_given_up_after_the_limit(
    cluster: Cluster, tmp_path: Path, wait_gone: Wait
) -> None:
    spec = NodeSpec(timeouts=replace(QUICK, process_start_timeout_s=6.0))
    node, start = cluster.spare(Loaded(tmp_path, "hang"), spec)
    until(lambda: loaders(tmp_path), "loading")
    (pid,) = loaders(tmp_path)
    node.send("start", **start)
    assert node.expect("process_started")["pid"] != pid
    assert runs(node)["pid"] != pid
    wait_gone(pid)


def test_a_spare_whose_entry_hangs_while_it_is_loaded_does_not_stay_for_ever(
    cluster: Cluster, tmp_path: Path, wait_gone: Wait
) -> None:
    spec = NodeSpec(timeouts=replace(QUICK, process_start_timeout_s=6.0))
    node, _ = cluster.spare(Loaded(tmp_path, "hang"), spec)
    pid = node.expect("spare")["pid"]
    ended = node.expect("spare", until=lambda line: line["state"] == "ended")
    assert ended["pid"] == pid
    wait_gone(pid)
    assert loaders(tmp_path) == {pid}
    assert "has not loaded its entry within 6.0 s" in node.log


@pytest.mark.parametrize(
    ("then", "says"),
    [
        ("fail", "ImportError: fail"),
        ("thread", "ImportError: thread"),
        ("gpu", "the modules of the entry have opened"),
    ],
)
def test_an_entry_that_cannot_be_loaded_ahead_is_loaded_again(
    cluster: Cluster, tmp_path: Path, then: str, says: str
) -> None:
    node, start = cluster.spare(Loaded(tmp_path, then))
    ended = node.expect("spare", until=lambda line: line["state"] == "ended")
    node.send("start", **start)
    assert runs(node)["pid"] != ended["pid"]
    assert says in node.log


def test_a_node_whose_process_could_not_be_started_ahead_says_so(
    cluster: Cluster, tmp_path: Path
) -> None:
    node, start = cluster.spare(
        Loaded(tmp_path), first=lambda work_dir: (work_dir / "process-ahead").touch()
    )
    assert node.expect("spare") == {"type": "spare", "state": "ended", "pid": None}
    assert "no process could be started ahead" in node.log
    node.send("start", **start)
    assert node.expect("process_started")["pid"] not in loaders(tmp_path)
    runs(node)


@pytest.mark.parametrize("how", ["stop", "end of file", "TERM", "KILL"])
def test_a_spare_that_nobody_needs_ends_with_everything(
    cluster: Cluster, tmp_path: Path, how: str, wait_gone: Wait
) -> None:
    node, start = cluster.spare(Loaded(tmp_path))
    pid = ready(node)
    if how == "stop":
        node.send("stop", reason="nobody needs it")
    elif how == "end of file":
        node.close_stdin()
    else:
        os.kill(node.popen.pid, signal.Signals[f"SIG{how}"])
    assert node.wait(3) == (-signal.SIGKILL if how == "KILL" else 0)
    wait_gone(pid)
    # It is the JVM's to remove, which may start another node there; not so if the JVM is gone.
    assert Path(start["work_dir"]).exists() == (how != "end of file")


def test_a_spare_node_that_is_stopped_right_after_its_start_leaves_nothing(
    cluster: Cluster, tmp_path: Path, wait_gone: Wait
) -> None:
    node, start = cluster.spare(Loaded(tmp_path, "hang"))
    until(lambda: loaders(tmp_path), "loading")
    (pid,) = loaders(tmp_path)
    node.send("start", **start)
    node.expect("spare", until=lambda line: line["state"] == "taken")
    node.send("stop", reason="at once")
    assert node.wait(5) == 0
    wait_gone(pid)
    assert not Path(start["work_dir"]).exists()
