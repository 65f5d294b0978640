"""Groups rows anew: batches of any size in, batches of a wanted size out."""

from __future__ import annotations

from collections import deque

import pyarrow as pa

from headrace.errors import DataError

__all__ = ["Rebatcher"]


class Rebatcher:
    """Keeps the order of rows and cuts them into batches of exactly `rows` rows.

    Pure; not thread-safe. A batch that lies inside one incoming batch is a slice of it, without
    a copy; one that straddles several is copied once.

    Attributes:
        rows: Rows of the next batch; may be changed between two calls.
        at_once: How many batches may be taken together, where they lie inside one incoming
            batch; likewise.

    Example:
        >>> import pyarrow as pa
        >>> rebatcher = Rebatcher(3)
        >>> rebatcher.push(pa.record_batch({"x": [1, 2, 3, 4]}))
        >>> rebatcher.take().to_pydict(), rebatcher.take(), rebatcher.flush().to_pydict()
        ({'x': [1, 2, 3]}, None, {'x': [4]})
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.at_once = 1
        self._held: deque[pa.RecordBatch] = deque()
        self._held_rows = 0

    @property
    def held_rows(self) -> int:
        """Rows that were pushed and not yet taken."""
        return self._held_rows

    def push(self, batch: pa.RecordBatch) -> None:
        """Add rows at the end; every batch must have the same schema."""
        if batch.num_rows:
            self._held.append(batch)
            self._held_rows += batch.num_rows

    def put_back(self, batch: pa.RecordBatch) -> None:
        """Add rows in front: the end of what was taken last."""
        if batch.num_rows:
            self._held.appendleft(batch)
            self._held_rows += batch.num_rows

    def take(self) -> pa.RecordBatch | None:
        """Take the next `rows` rows, or several times as many, or None if fewer are held."""
        if self._held_rows < self.rows:
            return None
        together = min(self.at_once, self._held[0].num_rows // self.rows)
        return self._take(self.rows * max(1, together))

    def flush(self) -> pa.RecordBatch | None:
        """Take what is held, but not more than `rows` rows, or None if nothing is."""
        return self._take(min(self.rows, self._held_rows)) if self._held_rows else None

    def _take(self, rows: int) -> pa.RecordBatch:
        parts = []
        wanted = rows
        while wanted:
            head = self._held.popleft()
            if head.num_rows > wanted:
                self._held.appendleft(head.slice(wanted))
                head = head.slice(0, wanted)
            parts.append(head)
            wanted -= head.num_rows
        self._held_rows -= rows
        return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    joined = pa.Table.from_batches(parts).combine_chunks().to_batches()
    if len(joined) != 1:
        rows = sum(part.num_rows for part in parts)
        msg = (
            f"A batch of {rows} rows holds a column of over 2 GiB, which Arrow cannot address; "
            "ask for fewer rows"
        )
        raise DataError(msg)
    return joined[0]
