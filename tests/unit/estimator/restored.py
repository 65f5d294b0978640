"""Fits that are restored from every place at which Flink may have taken a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.exchange import Barrier, Batch, End, Item
from headrace.framework.process import StateRef
from tests.unit.role.test_restored_passes import SlowBarriers

ALONE: dict[str, Any] = {
    "index": 0,
    "parallelism": 1,
    "cluster": {"worker": ("localhost",)},
    "ports": {"worker": (1,)},
    "host": "localhost",
}
IN_STREAM = 2
"""Barriers between the rows of the first pass; more follow in later ones."""


def all_items(table: pa.Table, later: int) -> list[Item]:
    """The rows with two barriers between them, and `later` more behind their end."""
    return [*_rows(table, 0), *map(Barrier, range(IN_STREAM + 1, IN_STREAM + 1 + later))]


def items_behind(table: pa.Table, checkpoint: int | None) -> list[Item]:
    """What the sources give to a process that is restored from a checkpoint."""
    return _rows(table, 3 if checkpoint is None else min(checkpoint, 3))


def feed_of(items: Sequence[Item], table: pa.Table) -> SlowBarriers:
    return SlowBarriers(items, input_schema=table.schema)


def restored_from(directory: Path, state: bytes) -> dict[str, Any]:
    path = directory / "state"
    path.write_bytes(state)
    return {"is_restored": True, "states": (StateRef(path=str(path), index=0, parallelism=1),)}


def _rows(table: pa.Table, parts_left_out: int) -> list[Item]:
    """Three parts, a barrier between two of them, and the end."""
    third = len(table) // 3
    cuts = [0, third, 2 * third, len(table)]
    items: list[Item] = []
    for number in range(parts_left_out, 3):
        items += _batches(table.slice(cuts[number], cuts[number + 1] - cuts[number]))
        if number < IN_STREAM:
            items.append(Barrier(number + 1))
    return [*items, End()]


def _batches(table: pa.Table) -> Iterator[Item]:
    for batch in table.combine_chunks().to_batches():
        yield Batch(batch)
