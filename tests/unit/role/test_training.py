"""What every training has: passes, an output directory, one process that saves."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import ConfigError, PlanError, UsageError
from headrace.exchange import Batch, End, MemoryFeed
from headrace.framework.process import ProcessSpec
from headrace.framework.stopping import StopRequestedExit
from headrace.role import (
    RoleContext,
    RoleEntry,
    RoleLink,
    TrainingContext,
    TrainingSettings,
    open_listener,
    require_not_restored,
)
from headrace.role.alone import Alone
from tests.unit.role.doubles import FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.int64())])


class Entry(RoleEntry):
    """The least that a framework does."""

    context_class = TrainingContext

    def __init__(self, entry: Any, settings: TrainingSettings) -> None:
        super().__init__(entry)
        self.settings = settings

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:
        assert isinstance(context, TrainingContext)
        context.use_settings(self.settings)


def feed_of(rows: int) -> MemoryFeed:
    batch = pa.record_batch([list(range(rows))], schema=SCHEMA)
    return MemoryFeed([Batch(batch), End()], input_schema=SCHEMA)


@pytest.mark.parametrize("method", ["batches", "arrow_batches"])
@pytest.mark.parametrize(("given", "passes"), [(None, 3), (1, 1)])
def test_a_call_that_names_no_epochs_makes_the_planned_passes(
    method: str, given: int | None, passes: int, tmp_path: Path
) -> None:
    rows: list[int] = []

    def read(ctx: TrainingContext) -> None:
        assert ctx.epochs == 3
        rows.extend(len(batch["x"]) for batch in getattr(ctx, method)(4, given))

    Entry(read, TrainingSettings(epochs=3))(spec_in(tmp_path), FakeLink(), feed=feed_of(6))
    assert rows == [4, 2] * passes


def test_passes_refuse_an_unknown_rule_for_null(tmp_path: Path) -> None:
    def read(ctx: TrainingContext) -> None:
        with pytest.raises(ConfigError, match="nulls='drop'"):
            list(ctx.passes(4, nulls="drop"))  # type: ignore[arg-type]

    Entry(read, TrainingSettings())(spec_in(tmp_path), FakeLink(), feed=feed_of(6))


class Noted(Alone):
    """Common steps that only note what they are asked for."""

    def __init__(self, *, leaves_rows: bool) -> None:
        self.calls: list[str] = []
        self._leaves_rows = leaves_rows
        self._rows = 0

    @property
    def pending_rows(self) -> int:
        return self._rows if self._leaves_rows else 0

    def count(self, rows: int) -> None:
        self._rows += rows
        self.calls.append(f"count {rows}")

    def end_pass(self, attend: Callable[[], object]) -> None:
        self.calls.append("end_pass")

    def finish(self, attend: Callable[[], object]) -> None:
        attend()
        self.calls.append("finish")

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        self.calls.append("finish_after_step")

    def close(self) -> None:
        self.calls.append("close")


class NotedContext(TrainingContext):
    """What a framework makes of `TrainingContext`."""

    def data_parallel(self, steps: Alone) -> None:
        self._steps = steps
        self._is_data_parallel = True


class NotedEntry(Entry):
    context_class = NotedContext


@pytest.mark.parametrize(
    ("leaves_rows", "at_the_end"), [(False, "finish"), (True, "finish_after_step")]
)
def test_common_steps_learn_of_every_batch_pass_and_end(
    leaves_rows: bool, at_the_end: str, tmp_path: Path
) -> None:
    steps = Noted(leaves_rows=leaves_rows)

    def read(ctx: NotedContext) -> None:
        ctx.data_parallel(steps)
        for _ in ctx.batches(4):
            pass

    link = FakeLink()
    NotedEntry(read, TrainingSettings(epochs=2))(spec_in(tmp_path), link, feed=feed_of(6))
    one_pass = ["count 4", "count 2"]
    assert steps.calls == [*one_pass, "end_pass", *one_pass, at_the_end, "finish", "close"]
    assert link.reports[-1][0] == {"steps": 0.0}


def test_a_stopped_process_waits_for_no_step_of_the_others(tmp_path: Path) -> None:
    steps = Noted(leaves_rows=False)
    ctx = NotedContext(spec=spec_in(tmp_path), link=FakeLink())
    ctx.data_parallel(steps)
    ctx.stop()
    assert steps.calls == ["close"]


class Stopped(Noted):
    """Common steps in which the node stops the process, once its function has returned."""

    def finish(self, attend: Callable[[], object]) -> None:
        raise StopRequestedExit


def test_a_process_that_is_stopped_while_it_shadows_the_others_hands_no_state_over(
    tmp_path: Path,
) -> None:
    """It may be in the midst of a step."""

    def leave(ctx: NotedContext) -> None:
        ctx.data_parallel(Stopped(leaves_rows=False))
        ctx.state["rows"] = len(next(ctx.batches(4))["x"])

    feed = feed_of(6)
    with pytest.raises(StopRequestedExit):
        NotedEntry(leave, TrainingSettings())(spec_in(tmp_path), FakeLink(), feed=feed)
    assert feed.states == []
    assert feed.has_sent_end
    assert feed.is_closed


@pytest.mark.parametrize("index", [0, 1])
def test_one_process_saves_and_all_know_where(index: int, tmp_path: Path) -> None:
    output_dir = tmp_path / "out"
    seen: list[Any] = []

    def look(ctx: TrainingContext) -> None:
        seen.append((ctx.output_path("deep/model"), ctx.is_saver))
        with pytest.raises(ConfigError, match="below the output directory"):
            ctx.output_path("../model")

    entry = Entry(look, TrainingSettings(output_dir=output_dir))
    entry(spec_in(tmp_path, index=index), FakeLink())
    assert seen == [(output_dir / "deep" / "model", index == 0)]
    assert output_dir.exists() == (index == 0)


def test_without_an_output_dir_there_is_no_place_to_save_to(tmp_path: Path) -> None:
    entry = Entry(lambda ctx: ctx.output_path("model"), TrainingSettings())
    with pytest.raises(UsageError, match="plan the training with an output_dir"):
        entry(spec_in(tmp_path), FakeLink())


def test_a_context_that_cannot_be_prepared_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    feed = feed_of(1)
    entry = Entry(print, TrainingSettings(output_dir=tmp_path / "file" / "models"))
    with pytest.raises(ConfigError, match=r"output_dir=.*Nothing was trained"):
        entry(spec_in(tmp_path, index=0), FakeLink(), feed=feed)
    assert feed.is_closed


def test_every_report_is_told_to_who_asked_for_it(tmp_path: Path) -> None:
    told: list[Any] = []

    def report(ctx: RoleContext) -> None:
        for step in range(3):
            ctx.report(step=step)

    link = FakeLink()
    RoleEntry(report)(spec_in(tmp_path), link, on_report=told.append)
    assert told == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert link.reports[-1][0] == {"step": 2.0}


def test_a_restored_job_does_not_train() -> None:
    require_not_restored(is_restored=False)
    with pytest.raises(PlanError, match="restored from a Flink checkpoint or savepoint"):
        require_not_restored(is_restored=True)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.3", "localhost"])
def test_a_listener_is_open_before_its_address_is_told(host: str) -> None:
    with (
        open_listener(host, peers=2) as listener,
        socket.create_connection((host, listener.getsockname()[1]), timeout=5.0),
    ):
        pass


def test_a_listener_is_open_on_its_address_only() -> None:
    with (
        open_listener("127.0.0.1", peers=2) as listener,
        pytest.raises(ConnectionRefusedError),
        socket.create_connection(("127.0.0.2", listener.getsockname()[1]), timeout=5.0),
    ):
        pass


@pytest.mark.parametrize("host", ["192.0.2.7", "no-such-host.invalid"])  # of nobody
def test_a_host_that_is_not_here_is_an_error_that_names_the_setting(host: str) -> None:
    with pytest.raises(ConfigError, match=r"`taskmanager\.host`"):
        open_listener(host, peers=2)
