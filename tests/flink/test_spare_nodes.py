"""After a failure Flink's next attempt goes on in processes that stood by (ADR 0120)."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyflink.java_gateway import get_gateway

import headrace.pytorch
import headrace.tensorflow
from headrace import Cluster, RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.waiting import always, until

from .conftest import MakeEnvironment
from .processes import parent_of
from .spare_jobs import NotAhead, begun, count_until_told
from .system import descendants
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir, wide_rows
from .test_operator_rows import CHECKPOINTS

ROWS = 16_000
SUM = ROWS * (ROWS + 1) // 2
LIMIT_S = 100


class Job:
    """A job of one worker, that goes on slowly until it is told, and what is seen of it."""

    def __init__(self, handle: JobHandle, folder: Path) -> None:
        self.handle = handle
        self._folder = folder
        self._log_begin = len(_log())

    @property
    def log(self) -> str:
        return _log()[self._log_begin :]

    def await_ready(self, *, but: int = 0) -> int:
        """Return the process of a spare once it waits."""

        def ready() -> int:
            found = re.findall(r"spare\] process (\d+) is ready", self.log)
            return int(found[-1]) if found and int(found[-1]) != but else 0

        pid: int = self._until(ready, "a spare")
        return pid

    def await_begun(self, count: int) -> int:
        """Return the latest process once so many have handled rows."""
        self._until(lambda: len(begun(self._folder)) >= count, f"process {count} at its rows")
        assert len(begun(self._folder)) == count
        return [*begun(self._folder)][-1]

    def await_log(self, text: str, count: int = 1) -> None:
        self._until(lambda: self.log.count(text) >= count, f"line {text!r} in the log")

    def await_checkpoints(self) -> None:
        """Wait for three more: at each, a spare is started if one is to be."""
        done = "Completed checkpoint"
        self.await_log(done, self.log.count(done) + 3)

    @property
    def spares(self) -> int:
        """How many spare nodes were started."""
        return self.log.count(" spare] started as process")

    def finish(self) -> None:
        """Let it go on; every row must count once."""
        (self._folder / "go").touch()
        result = self.handle.wait(timeout_s=LIMIT_S, show_progress=False)
        report = result.status.nodes["worker-0"].report
        assert (report["count"], report["sum"]) == (ROWS, SUM)

    def _until(self, look: Callable[[], Any], what: str) -> Any:
        return until(look, what, LIMIT_S, lambda: self.log[-6000:])


def _log() -> str:
    path = get_gateway().jvm.java.lang.System.getProperty("log.file")
    return Path(path).read_text(errors="replace")


@pytest.fixture
def submit(make_t_env: MakeEnvironment, tmp_path: Path) -> Callable[..., Job]:
    """Submit a job whose spare is started with the first checkpoint."""

    def make(
        spare_after_s: float | None = 0,
        wraps: Callable[[Any], Any] = lambda entry: entry,
        ships: Path | None = None,
        **options: str,
    ) -> Job:
        t_env = make_t_env(
            **{**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"), **options}
        )
        if ships is not None:
            t_env.add_python_file(str(ships))
        cluster = Cluster(t_env, name="spared")
        cluster.add_am_role()
        role = RoleConfig(
            entry=wraps(count_until_told(tmp_path)),
            exchange=SMALL,
            spare_after_s=spare_after_s,
        )
        cluster.add_role("worker", role, input=wide_rows(t_env, ROWS))
        return Job(cluster.submit(), tmp_path)

    return make


@pytest.mark.parametrize("victim", ["process", "node"])
def test_the_next_attempt_goes_on_in_the_spare(
    submit: Callable[..., Job], tmp_path: Path, victim: str
) -> None:
    job = submit()
    first = job.await_begun(1)
    spare = job.await_ready()
    spare_node = parent_of(spare)
    os.kill(first if victim == "process" else parent_of(first), signal.SIGKILL)
    assert job.await_begun(2) == spare
    assert parent_of(spare) == spare_node
    assert begun(tmp_path)[spare][0] > 1  # from a checkpoint
    job.await_log(f"[worker-0] goes on in spare node process {spare_node}")
    job.await_log(f"worker-0 goes on in process {spare}, which was started ahead")
    assert job.await_ready(but=spare) not in (spare, first)  # for the next time
    job.finish()


@pytest.mark.parametrize("victim", ["process", "node"])
def test_a_spare_that_dies_harms_nothing_and_is_replaced(
    submit: Callable[..., Job], victim: str
) -> None:
    job = submit()
    first = job.await_begun(1)
    dead = job.await_ready()
    os.kill(dead if victim == "process" else parent_of(dead), signal.SIGKILL)
    spare = job.await_ready(but=dead)
    always(lambda: job.handle.status().state == "RUNNING", "the job runs on", for_s=0.5)
    os.kill(first, signal.SIGKILL)
    assert job.await_begun(2) == spare
    job.finish()


@pytest.mark.parametrize("victim", ["process", "node"])
def test_a_spare_that_is_frozen_is_killed_and_not_used(
    submit: Callable[..., Job], victim: str
) -> None:
    job = submit()
    first = job.await_begun(1)
    frozen = job.await_ready()
    node = parent_of(frozen)
    os.kill(frozen if victim == "process" else node, signal.SIGSTOP)
    os.kill(first, signal.SIGKILL)
    assert job.await_begun(2) != frozen
    assert not _is_alive(frozen)
    job.finish()


def test_a_job_that_is_cancelled_leaves_no_spare_and_no_file(
    submit: Callable[..., Job],
) -> None:
    job = submit()
    job.await_begun(1)
    spare = job.await_ready()
    directories = _directories()
    assert len(directories) == 5  # of master, two nodes and their processes
    job.handle.cancel()
    with pytest.raises(JobFailedError):
        job.handle.wait(timeout_s=LIMIT_S, show_progress=False)
    until(lambda: not _is_alive(spare), "end of the spare", 5)
    until(lambda: not any(map(Path.exists, directories)), "end of its files", 5)
    assert not any("headrace.framework" in each.command for each in descendants(os.getpid()))


def test_a_job_that_fails_for_good_leaves_no_spare(submit: Callable[..., Job]) -> None:
    job = submit(restart__strategy_fixed__delay_attempts="0")
    first = job.await_begun(1)
    spare = job.await_ready()
    directories = _directories()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(JobFailedError):
        job.handle.wait(timeout_s=LIMIT_S, show_progress=False)
    until(lambda: not _is_alive(spare), "end of the spare", 5)
    until(lambda: not any(map(Path.exists, directories)), "end of its files", 5)


@pytest.mark.parametrize("how", ["set to None", "too early"])
def test_without_a_spare_everything_is_as_before(submit: Callable[..., Job], how: str) -> None:
    job = submit(None if how == "set to None" else 1000.0)
    os.kill(job.await_begun(1), signal.SIGKILL)
    job.await_begun(2)
    job.finish()
    assert " spare]" not in job.log
    assert "--ahead" not in "".join(each.command for each in descendants(os.getpid()))


@pytest.mark.parametrize("why", ["no restart", "shipped files that Flink moves"])
def test_no_spare_is_made_where_none_could_be_used(
    submit: Callable[..., Job], tmp_path: Path, why: str
) -> None:
    if why == "no restart":
        job = submit(restart__strategy_type="none")
    else:
        module = tmp_path / "shipped.py"
        module.touch()
        places = [tmp_path / "a", tmp_path / "b"]
        for each in places:
            each.mkdir()
        job = submit(ships=module, io_tmp_dirs=",".join(map(str, places)))
    job.await_begun(1)
    job.await_checkpoints()
    assert job.spares == 0
    job.finish()


def test_after_three_spares_that_cannot_be_made_ready_there_are_no_more(
    submit: Callable[..., Job],
) -> None:
    job = submit(wraps=NotAhead)
    job.await_begun(1)
    job.await_log("3 in a row could not be made ready; no more are started")
    job.await_checkpoints()
    assert job.spares == 3
    assert job.log.count("ImportError: not ahead") == 3
    job.finish()


def _is_alive(pid: int) -> bool:
    return any(each.pid == pid for each in descendants(os.getpid()))


def _directories() -> list[Path]:
    """The working directories of the processes below this one."""
    found = [each for each in descendants(os.getpid()) if "headrace.framework" in each.command]
    return [Path(f"/proc/{each.pid}/cwd").readlink() for each in found]


@pytest.mark.parametrize(
    ("framework", "train"),
    [("torch", headrace.pytorch.train), ("tensorflow", headrace.tensorflow.train)],
    ids=["pytorch", "tensorflow"],
)
def test_a_training_finds_its_framework_imported(
    make_t_env: MakeEnvironment, tmp_path: Path, framework: str, train: Any
) -> None:
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    plan = train(
        wide_rows(t_env, ROWS),
        count_until_told(tmp_path, framework),
        exchange=SMALL,
        name="spared",
        spare_after_s=0,
    )
    job = Job(plan.submit(), tmp_path)
    first = job.await_begun(1)
    spare = job.await_ready()
    libraries = Path(f"/proc/{spare}/maps").read_text()
    assert f"/{framework}/" in libraries
    os.kill(first, signal.SIGKILL)
    assert job.await_begun(2) == spare
    _, was_there = begun(tmp_path)[spare]
    assert was_there
    job.finish()
