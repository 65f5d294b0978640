"""Leases: a batch that somebody keeps is never overwritten, and does not stop the stream."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ExchangeError, ProtocolError
from headrace.exchange import Batch, Channel, Watermark
from headrace.exchange.frames import CreditFrame, DirectionOffer, WatermarkFrame
from headrace.exchange.segment import InputSegment, OutputSegment
from tests.unit.exchange.peer import Peer

SCHEMA = pa.schema([("x", pa.int64()), ("s", pa.utf8())])
SLOTS = 6


def rows(number: int) -> pa.RecordBatch:
    xs = np.arange(500) + 1000 * number
    return pa.record_batch([xs, [str(x) for x in xs]], schema=SCHEMA)


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[tuple[Peer, Channel]]:
    peer = Peer(tmp_path, input_schema=SCHEMA, slots=SLOTS)
    channel = peer.open_channel()
    yield peer, channel
    channel.close()
    peer.close()


def receive(channel: Channel) -> Batch:
    item = channel.receive(timeout_s=10)
    assert isinstance(item, Batch)
    return item


def test_kept_batches_do_not_change_while_a_thousand_more_pass(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    kept_batches = {}
    kept_views = {}
    for number in range(1003):
        peer.send_rows(rows(number))
        batch = receive(channel)
        assert batch.columns.equals(rows(number))
        if number in (0, 400, 401):
            kept_batches[number] = batch.columns
        if number in (1, 500):
            kept_views[number] = batch.columns.column(0).to_numpy()
        del batch
        if number % 400 == 0:
            gc.collect()
    for number, columns in kept_batches.items():
        assert columns.equals(rows(number))
    for number, view in kept_views.items():
        assert view.tolist() == rows(number).column(0).to_pylist()


def test_who_keeps_every_batch_neither_stops_the_stream_nor_sees_it_change(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    kept = []
    for number in range(50):
        peer.send_rows(rows(number))  # waits for a credit: this would hang without the copies
        kept.append(receive(channel))
    for number, batch in enumerate(kept):
        assert batch.columns.equals(rows(number))


def test_batches_outlive_the_channel(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    peer.send_rows(rows(0))
    batch = receive(channel)
    channel.close()
    peer.close()
    del channel, peer
    gc.collect()
    assert batch.columns.equals(rows(0))


def test_the_memory_is_unmapped_with_the_last_batch(tmp_path: Path) -> None:
    peer = Peer(tmp_path, input_schema=SCHEMA, slots=SLOTS)
    channel = peer.open_channel()
    peer.send_rows(rows(0))
    batch = receive(channel)
    peer.segments["input"].memory.close()  # from here on, all maps are the channel's
    channel.close()
    peer.close()
    assert "input.seg" in Path("/proc/self/maps").read_text()
    del batch
    assert "input.seg" not in Path("/proc/self/maps").read_text()


def test_a_batch_may_die_on_another_thread(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    slot = peer.send_rows(rows(0))
    held = [receive(channel)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert channel.receive(timeout_s=0) is None
    assert peer.expect(CreditFrame).slot == slot


def test_a_tensor_keeps_its_batch(queue: tuple[Peer, Channel]) -> None:
    torch = pytest.importorskip("torch")
    peer, channel = queue
    slot = peer.send_rows(rows(7))
    tensor = torch.utils.dlpack.from_dlpack(receive(channel).columns.column(0))
    half = tensor.view(2, 250)[1]
    del tensor
    assert channel.receive(timeout_s=0) is None
    assert not peer.has_frame()
    assert half.tolist() == list(range(7250, 7500))
    half += 1  # in place: the slot is this reader's, so nothing breaks
    del half
    assert channel.receive(timeout_s=0) is None
    assert peer.expect(CreditFrame).slot == slot


def test_with_two_slots_every_batch_is_copied_and_credited_at_once(tmp_path: Path) -> None:
    peer = Peer(tmp_path, input_schema=SCHEMA, slots=2)
    channel = peer.open_channel()
    slot = peer.send_rows(rows(0))
    batch = receive(channel)
    peer.send(WatermarkFrame(1))
    assert channel.receive(timeout_s=10) == Watermark(1)
    assert peer.expect(CreditFrame).slot == slot
    assert batch.columns.equals(rows(0))
    channel.close()
    peer.close()


def offer(path: Path, **changes: int) -> DirectionOffer:
    fields = {"slots": 2, "slot_bytes": 4096, "batch_rows": 10, "max_row_bytes": 10, **changes}
    return DirectionOffer(path=str(path), schema=b"", **fields)


def test_a_segment_that_is_shorter_than_announced_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(8191))
    with pytest.raises(ProtocolError, match="8191 bytes instead of 8192"):
        InputSegment(offer(path))


def test_a_segment_that_is_missing_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match="nowhere"):
        OutputSegment(offer(tmp_path / "nowhere"))


def test_a_slot_that_is_lent_may_not_be_written(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(4 * 4096))
    segment = InputSegment(offer(path, slots=4))
    message = segment.read(1, 100)
    with pytest.raises(ProtocolError, match="credit"):
        segment.read(1, 100)
    del message
    assert segment.take_returned() == [1]
    assert segment.read(1, 100).size == 100


@pytest.mark.parametrize(("slot", "size"), [(-1, 8), (2, 8), (0, 0), (0, 4097)])
def test_nothing_outside_a_slot_is_read(tmp_path: Path, slot: int, size: int) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(8192))
    with pytest.raises(ProtocolError, match="outside"):
        InputSegment(offer(path)).read(slot, size)


def test_a_fork_pins_what_is_lent(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    path.write_bytes(bytes(6 * 4096))
    segment = InputSegment(offer(path, slots=6))
    before = segment.read(0, 8)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    after = segment.read(1, 8)
    del before, after
    assert segment.take_returned() == [1]
    assert segment.lent_slots == 1


_LOOK_INTO_A_CLOSED_PROCESS = """
import ctypes, os, sys
from headrace.errors import ExchangeError
from headrace.exchange.frames import DirectionOffer
from headrace.exchange.segment import OutputSegment, map_oversize

path = f"/proc/{os.getpid()}/fd/{os.open(sys.argv[1], os.O_RDWR)}"
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE, as the kernel does for file capabilities
if os.fork() == 0:
    if os.geteuid() == 0:
        os.setuid(65534)
    offer = DirectionOffer(
        path=path, slots=1, slot_bytes=4096, schema=b"", batch_rows=1, max_row_bytes=1
    )
    for use in (lambda: OutputSegment(offer), lambda: map_oversize(path, 4096)):
        try:
            use()
        except ExchangeError as exc:
            print(exc, flush=True)
    os._exit(0)
os.wait()
"""


def test_an_open_file_that_proc_does_not_show_is_an_error_with_what_to_do(
    tmp_path: Path,
) -> None:
    file = tmp_path / "segment"
    file.write_bytes(bytes(4096))
    done = subprocess.run(
        [sys.executable, "-c", _LOOK_INTO_A_CLOSED_PROCESS, str(file)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    texts = done.stdout.splitlines()
    assert len(texts) == 2, done.stderr
    for text in texts:
        assert "/fd/" in text
        assert "cannot be opened: Permission denied." in text
        assert "Run Flink and its Python as one user in one container" in text
