"""Both halves of the memory queue: what Java sends comes back from Python as it was."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.exchange import Barrier, Batch, Channel, End, Watermark
from tests.unit.exchange import java
from tests.unit.exchange.peer import Peer

PATIENCE_S = 60.0

pytestmark = pytest.mark.timeout(200)  # the first test compiles


def echo(socket_path: Path, on_item: Callable[[], object] = lambda: None) -> int:
    """Send everything back; return the number of rows. Tells of each thing that has come."""
    channel = Channel.connect(str(socket_path), attempt=1, connect_timeout_s=PATIENCE_S)
    rows = 0
    with contextlib.closing(channel):
        while True:
            item = channel.receive(timeout_s=PATIENCE_S)
            on_item()
            if isinstance(item, Batch):
                rows += item.columns.num_rows
                channel.send(item.columns, item.timestamps_ms)
            elif isinstance(item, Watermark):
                channel.send_watermark(item.timestamp_ms)
            elif isinstance(item, Barrier):
                channel.acknowledge(item.checkpoint_id)
            else:
                assert isinstance(item, End)
                channel.send_end()
                return rows


@pytest.mark.parametrize(
    ("rows", "slots", "slot_bytes", "batch_rows", "linger_ms", "large_every"),
    [
        pytest.param(200_000, 8, 1 << 21, 4096, 10, 0, id="defaults"),
        pytest.param(50_000, 2, 1 << 16, 64, 10, 0, id="always-full"),
        pytest.param(20_000, 2, 1 << 16, 4096, 0, 500, id="large-rows-without-linger"),
        pytest.param(5_000, 3, 1 << 16, 1, 0, 0, id="a-row-a-batch"),
        pytest.param(10_000, 4, 1 << 16, 100, 1, 3, id="every-third-row-oversized"),
    ],
)
def test_every_row_comes_back_once_and_in_order(
    java_classes: Path,
    tmp_path: Path,
    rows: int,
    slots: int,
    slot_bytes: int,
    batch_rows: int,
    linger_ms: int,
    large_every: int,
) -> None:
    socket_path = tmp_path / "q"
    settings = [rows, slots, slot_bytes, batch_rows, linger_ms, large_every]
    arguments = [str(socket_path), str(tmp_path), *map(str, settings)]
    with subprocess.Popen(
        java.command(java_classes, "QueueEcho", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "listening\n"
            assert echo(socket_path) == rows
            output, _ = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            print(process.stdout.read())  # noqa: T201 - pytest shows it with the failure
            raise
    assert output.startswith(f"ok {rows} rows"), output
    print(output)  # noqa: T201


def test_idle_is_said_once_per_wait_even_while_batches_are_kept(tmp_path: Path) -> None:
    rows = pa.record_batch([pa.array([1], pa.int32())], names=["i"])
    peer = Peer(tmp_path, input_schema=rows.schema)
    channel = peer.open_channel()
    kept = []
    for _ in range(2):
        peer.send_rows(rows)
        kept.append(channel.receive(timeout_s=PATIENCE_S))
        assert channel.receive(timeout_s=0.0) is None
        assert channel.receive(timeout_s=0.0) is None
    assert not peer.has_frame()
    assert peer.idle == [1, 2]
    channel.close()
    peer.close()
