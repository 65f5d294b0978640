"""A process that cannot be started as a whole leaves nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.framework.machine.facts import ProcessState
from headrace.framework.node.ahead import AheadProcess
from headrace.framework.node.life import LifePlan, ProcessLife
from headrace.framework.payload import dump_payload
from headrace.framework.process import ProcessSpec
from headrace.framework.runner import RunnerCommand
from headrace.framework.spec import NodeSpec

LONG = (sys.executable, "-c", "import time; time.sleep(100)")


def life_of(
    tmp_path: Path,
    argv: tuple[str, ...],
    *,
    command: Callable[[], RunnerCommand] | None = None,
    ahead: AheadProcess | None = None,
) -> ProcessLife:
    spec = ProcessSpec(
        job_name="job",
        attempt=1,
        host="h",
        payload_path="",
        role="worker",
        index=0,
        parallelism=1,
        work_dir=str(tmp_path / "work"),
    )
    plan = LifePlan(
        spec=spec,
        command=command or (lambda: RunnerCommand(argv=argv)),
        environment={},
        is_subreaper=False,
        sink=lambda line: None,
        ahead=ahead,
    )
    return ProcessLife(plan, coordination=None)  # type: ignore[arg-type]  # nothing is asked for


def children() -> set[str]:
    """Return the living ones: somebody else may take the status of those that have ended."""
    found = set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
    return {each for each in found if not is_ended(each)}


def is_ended(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"


@pytest.fixture
def bystander() -> Iterator[None]:
    """A child that has nothing to do with the life: `children` must go on to have it."""
    with subprocess.Popen(["sleep", "100"]) as child:
        yield
        child.kill()


@pytest.mark.parametrize("name", ["headrace-wait-", "headrace-output-"])
def test_without_a_thread_to_watch_it_a_process_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> Any:
        if thread.name.startswith(name):
            msg = "can't start new thread"
            raise RuntimeError(msg)
        return start(thread)

    before = children()
    monkeypatch.setattr(threading.Thread, "start", fail)
    end = asyncio.run(life_of(tmp_path, LONG).run(lambda pid: None))
    assert end.outcome is ProcessState.FAILED
    assert end.failure is not None
    assert "can't start new thread" in end.failure.message
    assert children() == before
    assert not (tmp_path / "work").exists()


def test_a_command_that_does_not_exist_leaves_no_directory(tmp_path: Path) -> None:
    life = life_of(tmp_path, ("/no/such/program",))
    end = asyncio.run(life.run(lambda pid: None))
    assert end.outcome is ProcessState.FAILED
    assert end.failure is not None
    assert "/no/such/program" in end.failure.message
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("is_stopped", [True, False], ids=["stopped", "no command"])
def test_a_life_that_does_not_take_the_process_started_for_it_ends_it(
    tmp_path: Path, is_stopped: bool, bystander: None
) -> None:
    payload = tmp_path / "payload"
    payload.write_bytes(dump_payload(entry=print))
    states: list[str] = []

    def fail() -> RunnerCommand:
        msg = "no command"
        raise ValueError(msg)

    async def scenario() -> None:
        ready = asyncio.Event()

        def tell(state: str, _: int) -> None:
            states.append(state)
            if state == "ready":
                ready.set()

        ahead = AheadProcess(
            role="worker",
            spec=NodeSpec(),
            work_dir=tmp_path / "work",
            payload_path=str(payload),
            sink=lambda line: None,
            on_state=tell,
            is_subreaper=False,  # else it ends all that other tests use
        )
        await asyncio.wait_for(ready.wait(), 15)
        life = life_of(tmp_path, LONG, command=None if is_stopped else fail, ahead=ahead)
        if is_stopped:
            life.stop(1.0)
        end = await life.run(lambda pid: None)
        expected = ProcessState.STOPPED if is_stopped else ProcessState.FAILED
        assert end.outcome is expected
        assert str(ahead.pid) not in children()
        assert states == ["loading", "ready", "ended"]

    before = children()
    asyncio.run(scenario())
    assert children() == before
    assert not (tmp_path / "work").exists()


def test_an_error_of_the_system_without_text_is_told_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ConnectionRefusedError

    monkeypatch.setattr(subprocess, "Popen", fail)
    end = asyncio.run(life_of(tmp_path, LONG).run(lambda pid: None))
    assert end.failure is not None
    assert end.failure.message.endswith("could not be started: ConnectionRefusedError()")
