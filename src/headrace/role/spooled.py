"""The rows of an input that is read several times: kept in the first pass, read later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headrace.errors import PlanError
from headrace.exchange import NO_ROWS, Batch, Rebatcher, Spool, SpoolContent, SpoolWriter
from headrace.role.polled import ReadyBatch
from headrace.role.replay import behind, replay

__all__ = ["NEW_ROWS", "InputPlace", "SpooledPasses", "require_such_a_pass"]

NEW_ROWS = (
    "Rows came from Flink behind a restored checkpoint whose input had ended: it was in a "
    "later pass. Restore it with the input that it had"
)


@dataclass(frozen=True, slots=True)
class InputPlace:
    """What a process goes on with behind a Flink checkpoint: sources give later rows only.

    Attributes:
        epoch: The pass, from 0. One that has ended is left when the next row is asked for.
        rows: Rows of it that were handed out, where the whole input is in `content`.
        content: The rows of the input so far.
        is_streaming: Whether more rows are to come.
    """

    epoch: int
    rows: int
    content: SpoolContent
    is_streaming: bool


class SpooledPasses:
    """Where a reader is in its passes, and the rows of the later ones.

    Thread model: as the reader.

    Args:
        directory: Existing directory for the spool.
        schema: Columns of the input.
        epochs: Passes over the input, at least 2.
        rebatcher: Cuts the rows of later passes.

    Attributes:
        epoch: The pass that is being read, from 0; after the last one, the last.
    """

    def __init__(
        self, directory: Path, schema: pa.Schema, *, epochs: int, rebatcher: Rebatcher
    ) -> None:
        self.epoch = 0
        self._epochs = epochs
        self._rebatcher = rebatcher
        self._writer: SpoolWriter | None = SpoolWriter(directory, schema, rows=rebatcher.rows)
        self._spool: Spool | None = None
        self._replay: Iterator[ReadyBatch] = iter(())
        self._begun_epoch = 0
        self._rows = 0
        self._is_over = False

    @property
    def size_bytes(self) -> int:
        """Size of the spool; 0 before the end of the first pass."""
        return 0 if self._spool is None else self._spool.size_bytes

    @property
    def rows_left(self) -> int:
        """Rows of a later pass that has begun and were not handed out; 0 in the first."""
        if self._spool is None or self._begun_epoch != self.epoch:
            return 0
        return self._spool.rows - self._rows

    @property
    def place(self) -> InputPlace:
        """Where to go on once all that was handed out was handled; refers to the spool."""
        if self._is_over:  # nobody reads the rows again
            return InputPlace(self.epoch, 0, NO_ROWS, is_streaming=False)
        spool = self._writer or self._spool
        assert spool is not None
        is_streaming = self._writer is not None
        return InputPlace(self._begun_epoch, self._rows, spool.content(), is_streaming)

    def write(self, batch: Batch) -> None:
        """Keep rows of the first pass."""
        assert self._writer is not None
        self._writer.write(batch)

    def end_pass(self) -> bool:
        """End the present pass; return whether there is another one, which is prepared."""
        if self._writer is not None:
            self._spool = self._writer.finish()
            self._writer = None
            self._rows = self._spool.rows
        assert self._spool is not None
        if self.epoch + 1 == self._epochs:
            self._is_over = True
            return False
        self.epoch += 1
        self._replay = replay(self._spool.read(), self._rebatcher, self.epoch)
        return True

    def begin_pass(self) -> None:
        """Say that the next row of a later pass is asked for: what ended before is left."""
        if self._begun_epoch != self.epoch:
            self._begun_epoch, self._rows = self.epoch, 0

    def next_batch(self) -> ReadyBatch | None:
        """Return the next batch of a later pass; None at its end."""
        ready = next(self._replay, None)
        if ready is not None:
            self._rows += ready.columns.num_rows
        return ready

    def put_back(self, rows: int) -> None:
        """Note that the last `rows` rows of a later pass come again."""
        self._rows -= rows

    def go_on_at(self, place: InputPlace) -> None:
        """Take up where another process was, before anything is read.

        Raises:
            PlanError: It was in a pass that this one does not make.
            ProtocolError: Its rows have other columns.
        """
        require_such_a_pass(place, self._epochs)
        assert self._writer is not None
        self._writer.refill(place.content)
        if place.is_streaming:
            return
        self._spool = self._writer.finish()
        self._writer = None
        self.epoch = self._begun_epoch = place.epoch
        self._rows = place.rows
        rest = behind(self._spool.read(), place.rows)
        self._replay = replay(rest, self._rebatcher, self.epoch)

    def close(self) -> None:
        """Free the spool. Idempotent. Batches that were handed out stay valid."""
        self._replay = iter(())
        for each in (self._writer, self._spool):
            if each is not None:
                each.close()


def require_such_a_pass(place: InputPlace, epochs: int) -> None:
    """Refuse to go on in a pass that is not made.

    Raises:
        PlanError: There are fewer than at the checkpoint.
    """
    if place.epoch >= epochs or epochs < 2:
        msg = (
            f"The restored checkpoint is of pass {place.epoch + 1} of several over the input, "
            f"and this job makes {epochs}: plan as many epochs as before"
        )
        raise PlanError(msg)
