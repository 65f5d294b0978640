"""A local copy of a bounded input, for the passes after the first."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from headrace.errors import ExchangeError, ProtocolError
from headrace.exchange.items import TIMESTAMP_FIELD, Batch, stamped, unstamped
from headrace.exchange.rebatch import Rebatcher

__all__ = ["NO_ROWS", "Spool", "SpoolContent", "SpoolWriter"]

_FILE_BATCH_ROWS = 16_384
_MAP_NORESERVE = 0x4000  # Linux; `mmap.MAP_NORESERVE` exists from Python 3.13 on
_NAME = "spool.arrow"
_MAGIC_BYTES = 8  # "ARROW1" and two zeros
_LATER_PASSES = (
    "Passes after the first (epochs > 1) read the input from there: it must fit on the "
    "TaskManager's disk (Flink's `io.tmp.dirs`), or the job must run with epochs=1."
)


@dataclass(frozen=True, slots=True)
class SpoolContent:
    """The rows of a spool, as bytes; it pickles, with its memory out of band (PEP 574).

    Attributes:
        file: The file, complete or not (uint8).
        rest: Rows behind it (uint8): an Arrow IPC stream, or nothing.
    """

    file: npt.NDArray[np.uint8]
    rest: npt.NDArray[np.uint8]


_NOTHING = np.empty(0, np.uint8)
NO_ROWS = SpoolContent(_NOTHING, _NOTHING)


class SpoolWriter:
    """Writes batches to an uncompressed Arrow IPC file; `finish` turns it into a `Spool`.

    Thread model: one thread at a time. The caller ends it with `finish` or `close`; the
    directory's owner removes what a killed process leaves.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, *, rows: int, why: str = _LATER_PASSES
    ) -> None:
        """Create the file.

        Args:
            directory: Where.
            schema: Columns of every batch.
            rows: Size of the batches that will be cut from it.
            why: For error texts: what it is for, and what to do if it does not fit.

        Raises:
            ExchangeError: The file cannot be created.
        """
        self._path = directory / _NAME
        self._schema = schema.append(TIMESTAMP_FIELD)
        # A multiple of what is cut from it later, so that later passes copy nothing.
        self._rebatcher = Rebatcher(rows * max(1, _FILE_BATCH_ROWS // rows))
        self._rows = 0
        self._why = why
        try:
            self._file = pa.OSFile(str(self._path), "wb")
        except OSError as exc:
            raise self._failed(exc, "created") from exc
        self._writer = pa.ipc.new_file(self._file, self._schema)

    def write(self, batch: Batch) -> None:
        """Append the rows of `batch`.

        Raises:
            ExchangeError: The disk is full, or fails.
        """
        self._rebatcher.push(stamped(batch))
        self._rows += batch.columns.num_rows
        while (full := self._rebatcher.take()) is not None:
            self._write(full)

    def content(self) -> SpoolContent:
        """Return all rows so far, for `refill`; refers to the file until it is finished.

        Raises:
            ExchangeError: The disk is full, or fails.
        """
        try:
            self._file.flush()
            with self._path.open("rb") as file:
                written = _mapped(file.fileno())
        except OSError as exc:
            raise self._failed(exc, "read") from exc
        rest = self._rebatcher.flush()
        if rest is None:
            return SpoolContent(written, _NOTHING)
        self._rebatcher.push(rest)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._schema) as stream:
            stream.write_batch(rest)
        return SpoolContent(written, np.frombuffer(sink.getvalue(), np.uint8))

    def refill(self, content: SpoolContent) -> None:
        """Append the rows that `content` has of another spool with the same columns.

        Raises:
            ExchangeError: The disk is full, or fails.
            ProtocolError: The columns are others.
        """
        # Behind its first bytes a file of Arrow's is a stream, also one that is not complete.
        for part in (content.file[_MAGIC_BYTES:], content.rest):
            if not len(part):
                continue
            with pa.ipc.open_stream(pa.py_buffer(part)) as batches:
                if batches.schema != self._schema:
                    msg = (
                        f"The restored rows have the columns {batches.schema.names}, and the "
                        f"input has {self._schema.names}, or they have other types"
                    )
                    raise ProtocolError(msg)
                for batch in batches:
                    self.write(unstamped(batch))

    def finish(self) -> Spool:
        """Complete the file, open it for reading and unlink it.

        Raises:
            ExchangeError: The disk is full, or fails.
        """
        rest = self._rebatcher.flush()
        if rest is not None:
            self._write(rest)
        try:
            self._writer.close()
            self._file.close()
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._path.unlink()
        except OSError as exc:
            raise self._failed(exc, "completed") from exc
        return Spool(fd, rows=self._rows)

    def close(self) -> None:
        """Give up: close and remove the file. Idempotent, also after `finish`."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _write(self, batch: pa.RecordBatch) -> None:
        try:
            self._writer.write_batch(batch)
        except OSError as exc:
            raise self._failed(exc, "written") from exc

    def _failed(self, exc: OSError, what: str) -> ExchangeError:
        return ExchangeError(
            f"The spool {self._path} of {self._rows} rows cannot be {what}: {exc}. {self._why}"
        )


class Spool:
    """Rows on a local disk, read through a memory map any number of times.

    Thread model: one thread at a time. The file has no name any more; its room is free again
    when the spool is closed and the last batch of it is gone.

    Attributes:
        rows: Number of rows.
        size_bytes: Size of the file.
    """

    def __init__(self, fd: int, *, rows: int) -> None:
        """Own the open file `fd`."""
        self._fd = fd
        self.rows = rows
        self.size_bytes = os.fstat(fd).st_size

    def read(self) -> Iterator[Batch]:
        """Return a pass over all rows, in the order in which they were written.

        Nothing is copied. Each pass maps the file anew and privately: who changes a batch in
        place changes neither the file nor another pass.
        """
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        memory = mmap.mmap(
            self._fd, self.size_bytes, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE
        )
        reader = pa.ipc.open_file(pa.py_buffer(memory))
        for index in range(reader.num_record_batches):
            yield unstamped(reader.get_batch(index))

    def content(self) -> SpoolContent:
        """Return all rows, for `SpoolWriter.refill`; refers to the file. Copies nothing."""
        return SpoolContent(_mapped(self._fd), _NOTHING)

    def close(self) -> None:
        """Close the file. Idempotent; batches that were read stay valid."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _mapped(fd: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a file as they are now."""
    if not os.fstat(fd).st_size:
        return _NOTHING
    return np.frombuffer(mmap.mmap(fd, 0, prot=mmap.PROT_READ), np.uint8)
