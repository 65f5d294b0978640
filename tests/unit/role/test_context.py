"""What an entry function sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ConfigError, DataError, UsageError, WaitTimeoutError
from headrace.exchange import Batch, End, Feed, MemoryFeed
from headrace.role import RoleContext
from tests.unit.role.doubles import FakeClock, FakeLink, spec_in

TABLE = pa.table({"x": pa.array(range(10), pa.float32()), "n": list(range(10))})
OUTPUT = pa.schema([("p", pa.float32())])


def context_of(
    directory: Path, feed: Feed | None = None, *, clock: FakeClock | None = None, **spec: Any
) -> tuple[RoleContext, FakeLink]:
    link = FakeLink()
    context = RoleContext(
        spec=spec_in(directory, **spec), link=link, feed=feed, clock=clock or FakeClock()
    )
    return context, link


def table_feed() -> MemoryFeed:
    return MemoryFeed.of_table(TABLE, batch_rows=4, output_schema=OUTPUT)


def test_it_tells_who_and_where_it_is(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed(), options={"epochs": 3})
    assert (context.job_name, context.role, context.index) == ("delays", "worker", 1)
    assert (context.parallelism, context.attempt, context.epoch) == (2, 1, 0)
    assert context.cluster == {"worker": ("h0", "h1"), "ps": ("h0",)}
    assert context.options == {"epochs": 3}
    assert context.input_schema == TABLE.schema
    assert context.output_schema == OUTPUT


def test_batches_are_dicts_of_arrays(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed())
    batches = list(context.batches(rows=3))
    assert [batch["n"].tolist() for batch in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert batches[0]["x"].dtype == np.float32


def test_arrow_batches_are_record_batches(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed())
    got = pa.Table.from_batches(list(context.arrow_batches(rows=6)))
    assert got.equals(TABLE)


def test_the_epoch_counts_while_batches_come(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed())
    epochs = [context.epoch for _ in context.batches(rows=5, epochs=3)]
    assert epochs == [0, 0, 1, 1, 2, 2]
    context.close(is_success=True)
    assert list(tmp_path.iterdir()) == []


def test_a_loop_that_was_left_goes_on_with_the_next_row(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed())
    for batch in context.batches(rows=3):
        assert batch["n"].tolist() == [0, 1, 2]
        break
    assert [len(batch["n"]) for batch in context.batches(rows=4)] == [4, 3]
    assert list(context.batches()) == []
    with pytest.raises(UsageError, match="epochs=1"):
        context.batches(epochs=2)


def test_wrong_settings_are_told_before_the_first_batch(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path, table_feed())
    with pytest.raises(ConfigError, match="rows=0"):
        context.batches(rows=0)
    with pytest.raises(ConfigError, match="nulls='drop'"):
        context.batches(nulls="drop")  # type: ignore[arg-type]


def test_null_follows_the_wish(tmp_path: Path) -> None:
    table = pa.table({"n": [1, None]})
    context, _ = context_of(tmp_path, MemoryFeed.of_table(table))
    with pytest.raises(DataError, match="'n'"):
        list(context.batches())
    context, _ = context_of(tmp_path, MemoryFeed.of_table(table))
    (batch,) = context.batches(nulls="mask")
    assert batch["n__valid"].tolist() == [True, False]


def test_no_rows_in_time_names_the_limit(tmp_path: Path) -> None:
    feed = MemoryFeed([Batch(TABLE.to_batches()[0])], input_schema=TABLE.schema)
    context, _ = context_of(tmp_path, feed, clock=FakeClock(step_s=0.1))
    batches = context.batches(rows=10, timeout_s=2.0)
    assert len(next(batches)["n"]) == 10
    with pytest.raises(WaitTimeoutError, match=r"10 rows.*timeout_s of ctx\.batches"):
        next(batches)


def test_time_spent_in_the_loop_does_not_count_as_waiting(tmp_path: Path) -> None:
    clock = FakeClock()
    context, _ = context_of(tmp_path, table_feed(), clock=clock)
    for _ in context.batches(rows=3, timeout_s=1.0):
        clock.now += 100


def test_what_is_emitted_leaves_with_its_timestamps(tmp_path: Path) -> None:
    feed = table_feed()
    context, _ = context_of(tmp_path, feed)
    for batch in context.batches(rows=5):
        context.emit({"p": batch["x"] * 2}, timestamps_ms=batch["n"])
    assert feed.output.column("p").to_pylist() == [2.0 * n for n in range(10)]
    stamps = [stamp for part in feed.sent_timestamps_ms if part for stamp in part.to_pylist()]
    assert stamps == list(range(10))


def test_a_table_of_several_chunks_keeps_its_timestamps_in_order(tmp_path: Path) -> None:
    feed = MemoryFeed(output_schema=OUTPUT)
    context, _ = context_of(tmp_path, feed)
    table = pa.table({"p": pa.chunked_array([[1.0], [2.0, 3.0]])})
    context.emit(table, timestamps_ms=[7, None, 9])
    assert [part and part.to_pylist() for part in feed.sent_timestamps_ms] == [[7], [None, 9]]
    with pytest.raises(DataError, match="2 values for 3 rows"):
        context.emit(table, timestamps_ms=[1, 2])


def test_timestamps_of_the_last_batch_can_be_passed_on(tmp_path: Path) -> None:
    rows = TABLE.to_batches()[0]
    feed = MemoryFeed(
        [Batch(rows, rows.column(1)), End()], input_schema=TABLE.schema, output_schema=OUTPUT
    )
    context, _ = context_of(tmp_path, feed)
    for batch in context.batches(rows=4):
        context.emit({"p": batch["x"]}, timestamps_ms=context.timestamps_ms)
    stamps = [stamp for part in feed.sent_timestamps_ms if part for stamp in part.to_pylist()]
    assert stamps == list(range(10))


def test_roles_without_a_direction_say_so(tmp_path: Path) -> None:
    alone, _ = context_of(tmp_path)
    assert alone.input_schema is None
    assert alone.output_schema is None
    with pytest.raises(UsageError, match="neither input nor output"):
        alone.batches()
    with pytest.raises(UsageError, match="no output"):
        alone.emit({"p": [1.0]})
    source, _ = context_of(tmp_path, MemoryFeed(output_schema=OUTPUT))
    with pytest.raises(UsageError, match="no input"):
        source.batches()


def test_reports_carry_the_row_counts(tmp_path: Path) -> None:
    clock = FakeClock()
    context, link = context_of(tmp_path, table_feed(), clock=clock)
    for number, batch in enumerate(context.batches(rows=4)):
        context.emit({"p": batch["x"][:2]})
        context.report(loss=np.float32(number))
        clock.now += 1
    context.close(is_success=True)
    assert link.reports[0] == ({"loss": 0.0}, 4, 2)
    assert link.reports[-1] == ({"loss": 2.0}, 10, 6)


def test_a_report_that_was_held_back_leaves_while_rows_are_awaited(tmp_path: Path) -> None:
    feed = MemoryFeed(input_schema=TABLE.schema)
    context, link = context_of(tmp_path, feed, clock=FakeClock(step_s=0.05))
    context.report(loss=2.0)
    context.report(loss=1.0)
    with pytest.raises(WaitTimeoutError):
        next(context.batches(timeout_s=3.0))
    assert link.reports[-1] == ({"loss": 1.0}, 0, 0)


def test_every_pass_gives_signs_that_the_process_gets_on(tmp_path: Path) -> None:
    clock = FakeClock()
    context, link = context_of(tmp_path, table_feed(), clock=clock)
    signs = []
    for _ in context.batches(rows=4, epochs=3):
        clock.now += 1
        signs.append(len(link.reports))
    assert signs == sorted(set(signs)), "one for each batch at least"
    assert {rows_in for _, rows_in, _ in link.reports[-3:]} == {TABLE.num_rows}
    for _ in range(5):
        context.open_reader(rows=4, epochs=3).attend()
        clock.now += 1
    assert len(link.reports) <= signs[-1] + 1, "waiting gives none"


def test_the_line_to_the_node_is_passed_on(tmp_path: Path) -> None:
    context, link = context_of(tmp_path)
    context.publish("store", "h0:1")
    assert context.lookup("store", 1.0) == "h0:1"
    context.stop_job("good enough")
    assert link.stop_reasons == ["good enough"]


def test_the_first_wish_for_a_savepoint_is_passed_on(tmp_path: Path) -> None:
    clock = FakeClock(step_s=1.5)
    context, link = context_of(tmp_path, clock=clock)
    for reason in ("good enough", "better", "best"):
        context.stop_job(reason, savepoint=True)
    assert (link.savepoint_wishes, link.stop_reasons) == (["good enough"], [])


def test_a_wish_that_nobody_could_be_told_of_is_refused(tmp_path: Path) -> None:
    """As in a chained role, whose processes have no master."""
    context, link = context_of(tmp_path, cluster={})
    with pytest.raises(UsageError, match=r"without a master .*flink stop"):
        context.stop_job("good enough", savepoint=True)
    assert link.savepoint_wishes == []


def test_what_led_to_a_stop_of_the_job_is_reported_before_it(tmp_path: Path) -> None:
    context, link = context_of(tmp_path, clock=FakeClock(step_s=0.01))
    context.report(step=3)
    context.report(step=4)
    assert link.reports[-1][0] == {"step": 3.0}
    context.stop_job("good enough")
    assert link.reports[-1][0] == {"step": 4.0}


def test_a_later_attempt_finds_what_an_earlier_one_saved(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    first, _ = context_of(tmp_path, checkpoint_dir=str(shared))
    assert first.latest_checkpoint() is None
    with first.checkpoint_path(10) as path:
        path.write_text("weights")
    assert first.latest_checkpoint() is None
    second, _ = context_of(tmp_path, checkpoint_dir=str(shared), attempt=2)
    found = second.latest_checkpoint()
    assert found is not None
    assert found.read_text() == "weights"


def test_without_a_checkpoint_directory_there_is_nothing_to_find(tmp_path: Path) -> None:
    context, _ = context_of(tmp_path)
    assert context.checkpoint_dir is None
    assert context.latest_checkpoint() is None
    with pytest.raises(UsageError, match="no checkpoint directory"):
        context.checkpoint_path(1)


@pytest.mark.parametrize("is_success", [True, False])
def test_close_says_the_end_only_on_success_and_once(tmp_path: Path, is_success: bool) -> None:
    feed = table_feed()
    context, _ = context_of(tmp_path, feed)
    context.close(is_success=is_success)
    context.close(is_success=True)
    assert feed.has_sent_end is is_success
    assert feed.is_closed
