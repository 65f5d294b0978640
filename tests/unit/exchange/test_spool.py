"""The spool: what was written comes back, as often as wanted, and nothing stays on the disk."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import ExchangeError
from headrace.exchange import Batch, Spool, SpoolWriter

SCHEMA = pa.schema([("x", pa.int64()), ("s", pa.utf8()), ("l", pa.list_(pa.float32()))])


def rows(start: int, count: int) -> pa.RecordBatch:
    xs = range(start, start + count)
    columns = [
        list(xs),
        [None if x % 5 == 0 else str(x) for x in xs],
        [[x] * (x % 3) for x in xs],
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def spool_of(directory: Path, sizes: list[int], *, with_timestamps: bool = False) -> Spool:
    writer = SpoolWriter(directory, SCHEMA, rows=100)
    start = 0
    for size in sizes:
        stamps = pa.array(range(start, start + size), pa.int64()) if with_timestamps else None
        writer.write(Batch(rows(start, size), stamps))
        start += size
    return writer.finish()


def table_of(spool: Spool) -> pa.Table:
    return pa.Table.from_batches([batch.columns for batch in spool.read()], schema=SCHEMA)


@pytest.mark.parametrize("sizes", [[], [1], [99, 1, 2000], [30_000, 30_000]])
def test_every_pass_gives_the_rows_that_were_written(tmp_path: Path, sizes: list[int]) -> None:
    spool = spool_of(tmp_path, sizes)
    expected = pa.Table.from_batches([rows(0, sum(sizes))])
    assert spool.rows == sum(sizes)
    for _ in range(3):
        assert table_of(spool).equals(expected)
    spool.close()
    spool.close()


def test_rows_that_are_not_in_the_file_yet_are_pickled_without_their_memory(
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    writer = SpoolWriter(tmp_path, SCHEMA, rows=100)
    writer.write(Batch(rows(0, 12_000)))
    aside: list[pickle.PickleBuffer] = []
    skeleton = pickle.dumps(writer.content(), protocol=5, buffer_callback=aside.append)
    assert len(skeleton) < 1000
    other = SpoolWriter(tmp_path / "other", SCHEMA, rows=100)
    other.refill(pickle.loads(skeleton, buffers=aside))
    assert table_of(other.finish()).equals(pa.Table.from_batches([rows(0, 12_000)]))
    assert table_of(writer.finish()).num_rows == 12_000


def test_timestamps_come_back_with_their_rows(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, [10, 20], with_timestamps=True)
    got: list[int] = []
    for batch in spool.read():
        assert batch.timestamps_ms is not None
        got += batch.timestamps_ms.to_pylist()
    assert got == list(range(30))
    spool.close()


def test_without_timestamps_there_are_none(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, [10])
    assert [batch.timestamps_ms for batch in spool.read()] == [None]
    spool.close()


def test_the_file_has_no_name_once_it_is_read_and_its_size_is_known(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, [5000])
    assert list(tmp_path.iterdir()) == []
    assert spool.size_bytes > 5000 * 8
    spool.close()


def test_batches_outlive_the_spool(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, [50])
    batch = next(spool.read())
    spool.close()
    assert batch.columns.equals(rows(0, 50))


def test_a_change_in_place_is_gone_in_the_next_pass(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    spool = spool_of(tmp_path, [50])
    tensor = torch.utils.dlpack.from_dlpack(next(spool.read()).columns.column(0))
    tensor.zero_()
    assert table_of(spool).equals(pa.Table.from_batches([rows(0, 50)]))
    spool.close()


def test_later_passes_hand_out_whole_multiples_of_the_wanted_rows(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, [7001, 9000, 4000])
    sizes = [batch.columns.num_rows for batch in spool.read()]
    assert all(size % 100 == 0 for size in sizes[:-1])
    spool.close()


def test_a_full_disk_is_an_error_that_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SpoolWriter(tmp_path, SCHEMA, rows=100)

    class FullWriter:
        def write_batch(self, batch: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "_writer", FullWriter())
    with pytest.raises(ExchangeError, match=r"(?s)No space left.*epochs=1"):
        writer.write(Batch(rows(0, 20_000)))
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="cannot be created"):
        SpoolWriter(tmp_path / "none", SCHEMA, rows=1)


def test_giving_up_leaves_nothing(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, SCHEMA, rows=1)
    writer.write(Batch(rows(0, 20_000)))
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []
