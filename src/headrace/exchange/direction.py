"""Rows to messages and back, for one direction of the queue."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from headrace.errors import DataError, ExchangeError, ProtocolError, RowTooLargeError
from headrace.exchange.frames import BatchFrame, DirectionOffer, OversizeFrame
from headrace.exchange.items import TIMESTAMP_FIELD, Batch, stamped, unstamped
from headrace.exchange.segment import InputSegment, OutputSegment, map_oversize

__all__ = ["InputDirection", "OutputDirection"]

_LOG = logging.getLogger(__name__)
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - shared memory, where the JVM looks as well
_FILL = 0.95  # how full a slot is planned; a piece that does not fit is halved again


class InputDirection:
    """Reads the messages that the JVM has written."""

    def __init__(self, offer: DirectionOffer) -> None:
        self._wire_schema = _wire_schema(offer)
        self.schema = self._wire_schema.remove(len(self._wire_schema) - 1)
        self.segment = InputSegment(offer)

    def open_batch(self, frame: BatchFrame) -> Batch:
        """Return the batch in the frame's slot, in place where the segment allows."""
        return self._decode(self.segment.read(frame.slot, frame.message_bytes), frame.rows)

    def open_oversize(self, frame: OversizeFrame) -> Batch:
        """Return the row in the frame's file, in place; the file is gone afterwards."""
        return self._decode(map_oversize(frame.path, frame.message_bytes), 1)

    def _decode(self, message: pa.Buffer, rows: int) -> Batch:
        try:
            batch = pa.ipc.read_record_batch(message, self._wire_schema)
            batch.validate()  # every buffer lies inside the message
        except (pa.ArrowException, OSError, EOFError) as exc:
            msg = (
                f"A message of {message.size} bytes is not a record batch of the schema: {exc}"
            )
            raise ProtocolError(msg) from exc
        if batch.num_rows != rows or not rows:
            msg = f"A message holds {batch.num_rows} rows, its frame says {rows}"
            raise ProtocolError(msg)
        return unstamped(batch)


class OutputDirection:
    """Writes messages for the JVM."""

    def __init__(self, offer: DirectionOffer, *, fallback_dir: str) -> None:
        wire_schema = _wire_schema(offer)
        self.schema = wire_schema.remove(len(wire_schema) - 1)
        self.slot_bytes = offer.slot_bytes
        self.segment = OutputSegment(offer)
        self._oversize_fd: int | None = None
        self._batch_rows = offer.batch_rows
        self._max_row_bytes = offer.max_row_bytes
        self._oversize_dirs = (_SHARED_MEMORY, fallback_dir)

    @property
    def is_oversize_outstanding(self) -> bool:
        """Whether the JVM has not given the credit for the last oversized row yet."""
        return self._oversize_fd is not None

    def with_timestamps(
        self, batch: pa.RecordBatch, timestamps_ms: pa.Array | None
    ) -> pa.RecordBatch:
        """Return `batch` as it goes over the wire, with the hidden column.

        Raises:
            DataError: The timestamps are not one int64 per row.
        """
        if timestamps_ms is not None and (
            not pa.types.is_int64(timestamps_ms.type) or len(timestamps_ms) != batch.num_rows
        ):
            msg = (
                f"timestamps_ms holds {len(timestamps_ms)} values of {timestamps_ms.type}; "
                f"{batch.num_rows} rows need as many int64"
            )
            raise DataError(msg)
        return stamped(Batch(batch, timestamps_ms))

    def messages(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.Buffer, int]]:
        """Cut `batch` into messages that fit a slot each, in order, with their numbers of rows.

        Only a message of a single row may be larger than a slot.

        Raises:
            RowTooLargeError: A row alone is over `max_row_bytes`.
        """
        # Before any row is sent; twice, since metadata and padding are no part of the buffers.
        if self._max_row_bytes < max(self.slot_bytes, 2 * batch.get_total_buffer_size()):
            self._require_allowed(batch)
        piece_rows = self._batch_rows
        planned_bytes = self.slot_bytes * _FILL
        # The first is quick but counts what lies around a slice, too.
        if batch.get_total_buffer_size() > planned_bytes and batch.nbytes > planned_bytes:
            fitting_rows = int(batch.num_rows * planned_bytes / batch.nbytes)
            piece_rows = max(1, min(piece_rows, fitting_rows))
        if 0 < batch.num_rows <= piece_rows:
            yield from self._fitting(batch)
            return
        for start in range(0, batch.num_rows, piece_rows):
            yield from self._fitting(batch.slice(start, piece_rows))

    def _fitting(self, piece: pa.RecordBatch) -> Iterator[tuple[pa.Buffer, int]]:
        message = piece.serialize()
        rows = piece.num_rows
        if message.size > self.slot_bytes and rows > 1:
            yield from self._fitting(piece.slice(0, rows // 2))
            yield from self._fitting(piece.slice(rows // 2))
            return
        if rows == 1 and message.size > self._max_row_bytes:
            raise RowTooLargeError(row_bytes=message.size, limit_bytes=self._max_row_bytes)
        yield message, rows

    def _require_allowed(self, piece: pa.RecordBatch) -> None:
        """Raise a `RowTooLargeError` if the message of a row alone is over the limit."""
        if not piece.num_rows:
            return
        size = pa.ipc.get_record_batch_size(piece)
        if size <= self._max_row_bytes:
            return
        if piece.num_rows == 1:
            raise RowTooLargeError(row_bytes=size, limit_bytes=self._max_row_bytes)
        half = piece.num_rows // 2
        self._require_allowed(piece.slice(0, half))
        self._require_allowed(piece.slice(half))

    def write_oversize(self, message: pa.Buffer) -> OversizeFrame:
        """Write `message` into a file of its own and return its frame.

        The file has no name: the JVM opens it through `/proc`. It is gone with the credit, or
        with this process.

        Raises:
            ExchangeError: Neither shared memory nor the temporary directory has room.
        """
        failures: list[OSError] = []
        for directory in self._oversize_dirs:
            try:
                self._oversize_fd = _write_nameless(directory, message)
            except OSError as exc:
                failures.append(exc)
                _LOG.warning(
                    "no room for a row of %d bytes in %s: %s",
                    message.size,
                    directory,
                    exc.strerror,
                )
                continue
            return OversizeFrame(message.size, f"/proc/{os.getpid()}/fd/{self._oversize_fd}")
        reasons = ", ".join(
            f"{directory} ({exc.strerror})"
            for directory, exc in zip(self._oversize_dirs, failures, strict=True)
        )
        msg = (
            f"There is no room for a row of {message.size} bytes in {reasons}. Make one of "
            "them larger, or the row smaller."
        )
        raise ExchangeError(msg) from failures[-1]

    def close_oversize(self) -> None:
        """Close the file of the last oversized row: the JVM has read it, or never will."""
        if self._oversize_fd is not None:
            os.close(self._oversize_fd)
            self._oversize_fd = None


def _wire_schema(offer: DirectionOffer) -> pa.Schema:
    try:
        schema = pa.ipc.read_schema(pa.py_buffer(offer.schema))
    except (pa.ArrowException, OSError, EOFError) as exc:
        msg = f"The schema of {offer.path} is not an Arrow IPC schema message: {exc}"
        raise ProtocolError(msg) from exc
    last = schema.field(len(schema) - 1) if len(schema) else None
    if last is None or not last.equals(TIMESTAMP_FIELD):
        msg = f"The last column of {offer.path} is {last}, not {TIMESTAMP_FIELD}"
        raise ProtocolError(msg)
    return schema


def _write_nameless(directory: str, message: pa.Buffer) -> int:
    """Write a file that has a name for a moment only; return its descriptor."""
    path = Path(directory) / f"headrace-{secrets.token_hex(12)}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, fd)
        path.unlink()
        rest = memoryview(message).cast("B")
        while rest:
            rest = rest[os.write(fd, rest) :]
        undo.pop_all()
    return fd
