"""A TaskManager is killed, crashes or is frozen below a training with a state: still exact.

Nothing of ours has to notice it: Flink does, by the lost connection, and of a frozen one, whose
connections stand, by `heartbeat.timeout`.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.chaos.jobs import Case, Places
from tests.faults.chaos.proof import require_exact_results
from tests.faults.flink.sight import files_left
from tests.waiting import until, until_settled

from .kept_job import KEEP, NARROW, await_kept, gone, processes, running, workers
from .standalone import Standalone, standalone_cluster
from .system import Process, descendants

Manager = subprocess.Popen[bytes]

ROWS_PER_BLOW = 16_000  # 50 s of slow steps: no blow may outlast its rows
_HEARTBEAT_S = 5.0
_SLACK_S = 5.0  # for a beat more, the word to the other TaskManager, and the end there
_CLEAN_S = 5.0
_GO_ON_S = 90.0
_LOOK_S = 1.0
_NOTICE = {"heartbeat.interval": "500 ms", "heartbeat.timeout": f"{_HEARTBEAT_S * 1000:.0f} ms"}
_TIMED_OUT = r"TaskManager with id \S+ timed out"
_LOST = r"TaskManager with id \S+ is no longer reachable|[Cc]onnection .*task manager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """What happens to a TaskManager that runs workers.

    Attributes:
        number: The signal that it gets.
        of_the_master: Which one gets it where both run a worker: the one that runs the master
            too, or the other one.
        is_to_the_end: Whether one that is frozen goes on behind the end of the job only.
    """

    number: signal.Signals
    of_the_master: bool = False
    is_to_the_end: bool = False


@dataclass(slots=True, kw_only=True)
class Trial:
    """One job on two TaskManagers, of which each has room for all of it.

    Attributes:
        cluster: Where it runs.
        places: Where it leaves what.
        job: Its id.
        frozen: The TaskManager that is frozen at the moment, and what runs below it.
    """

    cluster: Standalone
    places: Places
    job: str
    frozen: tuple[Manager, list[Process]] | None = field(default=None)

    def suffer(self, blow: Blow) -> None:
        """Strike behind a checkpoint: what ran must end, and others must go on."""
        await_kept(self.places, self.cluster.logs)
        victim = self._victim(blow)
        former = running(self.cluster.task_managers)
        assert len(former) == 5, "master, two nodes, two processes"
        below = processes(victim)  # those that stand by as well
        known = self._logs_of_steps()
        failures = len(self.causes())
        victim.send_signal(blow.number)
        if blow.number is signal.SIGSTOP:
            self.frozen = victim, below
            self._until_gone(set(former) - set(below), _HEARTBEAT_S + _SLACK_S)
        else:
            self._until_gone(below, _CLEAN_S)
            self.cluster.kill(victim)  # it has died, or still writes down why
            self._until_gone(former, _SLACK_S)
        until(
            lambda: len(self._logs_of_steps() - known) == 2,
            "steps of two other processes",
            _GO_ON_S,
            self.cluster.logs,
        )
        assert self._times(known)[-1] < self._times(self._logs_of_steps() - known)[0]
        cause = self.causes()[-failures - 1]  # it may have been deployed to the dead one again
        assert re.search(_TIMED_OUT if self.frozen else _LOST, cause), cause

    def thaw(self) -> None:
        """Let the frozen TaskManager go on; what it had started has ended by itself."""
        assert self.frozen is not None
        victim, below = self.frozen
        self._until_gone(below, _HEARTBEAT_S + _SLACK_S)
        victim.send_signal(signal.SIGCONT)
        self.frozen = None
        until_settled(
            lambda: not processes(victim), "end of its tasks", for_s=_LOOK_S, limit_s=_CLEAN_S
        )

    def recover(self) -> None:
        """Have two TaskManagers again."""
        if self.frozen is not None:
            causes = self.causes()
            self.thaw()
            await_kept(self.places, self.cluster.logs)
            assert self.causes() == causes, "the one that is back has disturbed the job"
        else:
            self.cluster.add_task_manager()
        self.cluster.wait_for_slots()

    def causes(self) -> list[str]:
        """What Flink has restarted the job for, newest first."""
        found = self.cluster.ask(f"jobs/{self.job}/exceptions")["exceptionHistory"]["entries"]
        return [str(each["stacktrace"]).partition("\n")[0] for each in found]

    def _victim(self, blow: Blow) -> Manager:
        those = [each for each in self.cluster.task_managers if workers(each)]
        if len(those) == 1:
            return those[0]
        return next(each for each in those if has_master(each) == blow.of_the_master)

    def _logs_of_steps(self) -> set[str]:
        return {path.name for path in self.places.steps.iterdir() if path.stat().st_size}

    def _times(self, logs: Iterable[str]) -> list[float]:
        """When the processes with these logs have made their steps."""
        lines = [
            line
            for log in logs
            for line in (self.places.steps / log).read_text().split("\n")[:-1]
        ]
        return sorted(float(line.split()[0]) for line in lines)

    def _until_gone(self, those: Iterable[Process], limit_s: float) -> None:
        def left() -> str:
            alive = "\n".join(each.command for each in those if each.is_alive)
            return f"{alive}\n{self.cluster.logs()}"

        until(lambda: gone([*those]), "end of them", limit_s, left)


def has_master(manager: Manager) -> bool:
    return any("framework.master" in each.command for each in descendants(manager.pid))


@contextmanager
def two_task_managers(folder: Path) -> Iterator[Standalone]:
    """Start them, with two slots each; one that is frozen in the end goes on."""
    options = {
        "web.refresh-interval": "100",  # ms; how old an answer may be
        **_NOTICE,
        "env.java.opts.taskmanager": (  # what it writes when it crashes is not for our folder
            f"-XX:ErrorFile={folder}/crash-%p.log -XX:-CreateCoredumpOnCrash"
        ),
        **NARROW,
    }
    with standalone_cluster(folder, options=options) as cluster:
        try:
            yield cluster
        finally:
            for each in cluster.task_managers:
                each.send_signal(signal.SIGCONT)


FROZEN = Blow(number=signal.SIGSTOP)
OF_THE_MASTER = Blow(number=signal.SIGSTOP, of_the_master=True)
TO_THE_END = Blow(number=signal.SIGSTOP, is_to_the_end=True)
KILLED = Blow(number=signal.SIGKILL)
CRASHED = Blow(number=signal.SIGSEGV)


@pytest.mark.long  # test_standalone_faults.py loses a TaskManager in CI
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("framework", "blows"),
    [
        # Of the blows to one job the first hits a half of it, the others all of it.
        pytest.param("pytorch", [OF_THE_MASTER], id="PyTorch, frozen"),
        pytest.param(
            "pytorch",
            [KILLED, FROZEN, CRASHED, TO_THE_END],
            id="PyTorch, killed, frozen, crashed",
        ),
        pytest.param(
            "tensorflow",
            [FROZEN, KILLED, CRASHED, TO_THE_END],
            id="TensorFlow, frozen, killed, crashed",
        ),
        pytest.param(
            "tensorflow",
            [Blow(number=signal.SIGSEGV, of_the_master=True)],
            id="TensorFlow, crashed",
        ),
    ],
)
def test_a_training_counts_every_row_once_after_the_loss_of_task_managers(
    tmp_path: Path, framework: Literal["pytorch", "tensorflow"], blows: list[Blow]
) -> None:
    places = Places(tmp_path / "job")
    rows = ROWS_PER_BLOW * len(blows)
    arguments = (places.folder, framework, "--name", "kept", "--rows", str(rows))
    with two_task_managers(tmp_path) as cluster:
        with cluster.started(*KEEP, *arguments) as program:
            job = cluster.wait_for_job("kept", "RUNNING")
            trial = Trial(cluster=cluster, places=places, job=job)
            for blow in blows:
                trial.suffer(blow)
                if not blow.is_to_the_end:
                    trial.recover()
            (places.folder / "go").touch()
            summary = cluster.finish(program)
        if trial.frozen is not None:
            trial.thaw()
            cluster.wait_for_slots()
        assert summary["attempt"] > len(blows)
        require_exact_results(Case(framework, 2, rows, 0), summary["reports"], places)
        until(lambda: not any(processes(each) for each in cluster.task_managers), "end of all")
        until(
            lambda: not files_left(cluster.tmp_dir),
            "end of all files",
            _CLEAN_S,
            lambda: str(files_left(cluster.tmp_dir)),
        )


@pytest.mark.long  # a cluster of three JVMs for a wait
@pytest.mark.timeout(300)
def test_a_training_waits_longer_than_the_gather_limit_for_a_lost_task_manager(
    tmp_path: Path,
) -> None:
    places = Places(tmp_path / "job")
    limit_s, rows = 30, 3_000
    arguments = (places.folder, "pytorch", "--name", "kept", "--rows", str(rows))
    limit = ("--gather-timeout", str(limit_s))
    with (
        standalone_cluster(tmp_path, slots=1, options={**NARROW, **_NOTICE}) as cluster,
        cluster.started(*KEEP, *arguments, *limit) as program,
    ):
        job = cluster.wait_for_job("kept", "RUNNING")
        await_kept(places, cluster.logs)
        cluster.kill(cluster.task_managers[0])

        def failures() -> str:
            return str(cluster.ask(f"jobs/{job}/exceptions")["exceptionHistory"]["entries"])

        told = f"had not all registered again after {limit_s}.0 s"
        until(lambda: told in failures(), "the limit", limit_s + 60, cluster.logs)
        cluster.add_task_manager()
        await_kept(places, cluster.logs)
        (places.folder / "go").touch()
        summary = cluster.finish(program)
    require_exact_results(Case("pytorch", 2, rows, 0), summary["reports"], places)
