"""The jobs that are struck: a training, and one of Flink alone."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from tests.faults.chaos.jobs import Case, Places
from tests.faults.chaos.proof import require_exact_results
from tests.faults.flink.sight import Member, files_left, members
from tests.faults.kinds.flink_job import FlinkJob
from tests.faults.kinds.marks import Marks
from tests.faults.kinds.stage import HEARTBEAT_TIMEOUT_S, WORKERS, Manager, Stage
from tests.flink.kept_job import KEEP, await_checkpoint, await_kept, gone, processes, running
from tests.flink.system import Process
from tests.segments import segments
from tests.waiting import until

__all__ = ["Trial", "open_flink_alone", "open_training"]

_FRAMEWORK: Literal["pytorch"] = "pytorch"
_ROWS_PER_STRIKE = 8_000  # more than what is trained on until the next strike, slowly
_ROWS_PER_S = 320  # as fast as the training goes
_RANDOM_S = 1.0
_LOOK_EVERY_S = 0.1
_SPARES_S = 120.0
_BACK_S = 90.0
_GONE_S = HEARTBEAT_TIMEOUT_S + 20.0
_CLEAN_S = 10.0
_END_S = 600.0
_ALL_S = 3_600.0


class Trial:
    """A job under strikes.

    Args:
        stage: Where it runs.
        job: It.
        places: Where it leaves what.
        chance: What decides.
        group: A control group with little memory; None if there is none.
    """

    def __init__(
        self,
        stage: Stage,
        job: FlinkJob,
        places: Places,
        chance: random.Random,
        group: Path | None = None,
    ) -> None:
        self.stage = stage
        self.job = job
        self.places = places
        self.group = group
        self._chance = chance

    def manager(self) -> Manager:
        """Return some TaskManager that has a part of the job."""
        return self._chance.choice(self.stage.managers_of(self.job))

    def worker(self) -> Member:
        """Return the algorithm process of some worker."""
        index = self._chance.randrange(WORKERS)
        roots = [each.pid for each in self.stage.cluster.task_managers]
        return next(each for each in members(*roots) if each.index == index)

    def settle(self) -> None:
        """Wait until all is well, and then for a random moment."""
        raise NotImplementedError

    def await_back(self, at_s: float) -> tuple[float, float]:
        """Wait until the job is back from a strike; to be called once behind `settle`.

        Args:
            at_s: The monotonic instant of the strike.

        Returns:
            The instants at which the job was back, and at which its source ran again.
        """
        raise NotImplementedError

    def _pause(self) -> None:
        threading.Event().wait(self._chance.uniform(0, _RANDOM_S))

    def _await_source(self, at_s: float) -> float:
        """Return when the source ran again, in a job all of which runs."""

        def runs() -> float | None:
            with suppress(OSError, KeyError):  # there may be no JobManager that leads
                since_s = self.job.runs_since_s()
                if since_s is not None and since_s > at_s:
                    return since_s
            threading.Event().wait(_LOOK_EVERY_S)
            return None

        return until(runs, "run of all of the job", _BACK_S, self.stage.cluster.logs)


class _Training(Trial):
    """It is back when both workers have made a step in a new attempt."""

    def __init__(
        self,
        stage: Stage,
        job: FlinkJob,
        places: Places,
        chance: random.Random,
        group: Path | None = None,
    ) -> None:
        super().__init__(stage, job, places, chance, group)
        self._marks = Marks(places.steps, WORKERS)
        self._attempt = 0
        self._former: list[Process] = []

    def settle(self) -> None:
        """Both workers have a spare that is ready, and a checkpoint has completed."""
        logs = self.stage.cluster.logs
        until(lambda: _seldom(self.stage.has_spares), "spares", _SPARES_S, logs)
        await_kept(self.places, logs)
        self._pause()
        self._attempt = self._marks.attempt()
        if self.stage.network is None:
            self._former = running(self.stage.cluster.task_managers)
            assert len(self._former) == 1 + 2 * WORKERS, "master, nodes, processes"

    def await_back(self, at_s: float) -> tuple[float, float]:
        """What ran before must have ended; on other hosts the strike sees to it."""
        logs = self.stage.cluster.logs
        back_s = until(lambda: self._marks.back_s(self._attempt), "steps", _BACK_S, logs)
        assert back_s > at_s, "the job has restarted by itself"
        source_s = self._await_source(at_s)
        until(lambda: gone(self._former), "end of what ran before", _GONE_S, logs)
        return back_s, source_s


class _FlinkAlone(Trial):
    """It is back when its source runs again."""

    def settle(self) -> None:
        """All of it runs, and a checkpoint has completed."""
        self._await_source(0.0)
        await_checkpoint(self.places, self.stage.cluster.logs)
        self._pause()

    def await_back(self, at_s: float) -> tuple[float, float]:
        """Both instants are the same."""
        source_s = self._await_source(at_s)
        return source_s, source_s


@contextmanager
def open_training(
    stage: Stage, strikes: int, chance: random.Random, group: Path | None
) -> Iterator[Trial]:
    """Submit a training of two workers; at the end it must be exact, with nothing left.

    Args:
        stage: Where.
        strikes: How many it will get.
        chance: What decides on them.
        group: As for `Trial`.
    """
    cluster = stage.cluster
    places = Places(cluster.folder / "training")
    rows = _ROWS_PER_STRIKE * (1 + strikes)
    arguments = {
        "--name": "training",
        "--rows": rows,
        "--heartbeat-timeout": HEARTBEAT_TIMEOUT_S,
        "--limit": _ALL_S,
    }
    texts = [str(each) for pair in arguments.items() for each in pair]
    with cluster.started(*KEEP, places.folder, _FRAMEWORK, *texts) as program:
        job = FlinkJob(cluster, cluster.wait_for_job("training", "RUNNING"))
        yield _Training(stage, job, places, chance, group)
        (places.folder / "go").touch()
        _require_good_end(stage, program, places, rows)


def _require_good_end(
    stage: Stage, program: subprocess.Popen[str], places: Places, rows: int
) -> None:
    cluster = stage.cluster
    summary = cluster.finish(program, _END_S)
    require_exact_results(Case(_FRAMEWORK, WORKERS, rows, 0), summary["reports"], places)
    cluster.wait_for_slots()
    _until_clean(lambda: any(map(processes, cluster.task_managers)), "processes")
    if stage.network is None:  # else they are in places of other hosts
        _until_clean(lambda: files_left(cluster.tmp_dir), "files")
        _until_clean(segments, "segments")


def _until_clean(left: Callable[[], object], what: str) -> None:
    until(lambda: not left(), f"end of all {what}", _CLEAN_S, lambda: str(left()))


@contextmanager
def open_flink_alone(stage: Stage, strikes: int, chance: random.Random) -> Iterator[Trial]:
    """Submit a job with the source, the options and the parallelism of the training.

    Args:
        stage: Where.
        strikes: How many it will get.
        chance: What decides on them.
    """
    cluster = stage.cluster
    places = Places(cluster.folder / "alone")
    arguments = {
        "--name": "alone",
        "--rows": _ROWS_PER_STRIKE * (1 + strikes),
        "--rows-per-s": _ROWS_PER_S,
    }
    texts = [str(each) for pair in arguments.items() for each in pair]
    cluster.python("-m", "tests.flink.programs.plain", places.folder, *texts)
    job = FlinkJob(cluster, cluster.wait_for_job("alone", "RUNNING"))
    yield _FlinkAlone(stage, job, places, chance)
    cluster.flink("cancel", job.job_id)
    cluster.wait_for_job("alone", "CANCELED")


def _seldom(look: Callable[[], bool]) -> bool:
    """Look, and wait a little where it does not hold: a look costs time of the processors."""
    holds = look()
    if not holds:
        threading.Event().wait(_LOOK_EVERY_S)
    return holds
