"""Divides a table among workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import pyarrow as pa

from headrace.errors import ConfigError

__all__ = ["Split", "split_table"]

Split: TypeAlias = Sequence[float] | Sequence[pa.Table]
"""Fractions of the rows, one per worker, that add up to 1; or one table per worker."""

_TOLERANCE = 1e-6


def split_table(
    table: pa.Table, workers: int, *, split: Split | None, batch_rows: int
) -> list[pa.Table]:
    """Return one table per worker.

    Without `split`, batches of `batch_rows` rows are dealt in turn. Fractions cut the table
    into consecutive parts. Tables are taken as they are; `table` then gives the schema only.

    Raises:
        ConfigError: There are not as many parts as workers, the fractions do not add up to 1,
            or a table has another schema.
    """
    if split is None:
        return _dealt(table, workers, batch_rows)
    if len(split) != workers:
        msg = f"split has {len(split)} parts for workers={workers}; give one per worker"
        raise ConfigError(msg)
    tables = [part for part in split if isinstance(part, pa.Table)]
    if tables:
        if len(tables) < workers or any(not t.schema.equals(table.schema) for t in tables):
            msg = "split: every part must be a table with the schema of the given one"
            raise ConfigError(msg)
        return tables
    fractions = [float(part) for part in split]
    if abs(sum(fractions) - 1) > _TOLERANCE or min(fractions) < 0:
        msg = f"split={fractions} must be fractions from 0 to 1 that add up to 1"
        raise ConfigError(msg)
    parts, start, share = [], 0, 0.0
    for fraction in fractions:
        share += fraction
        end = round(share * table.num_rows)
        parts.append(table.slice(start, end - start))
        start = end
    return parts


def _dealt(table: pa.Table, workers: int, batch_rows: int) -> list[pa.Table]:
    batches = table.combine_chunks().to_batches(max_chunksize=batch_rows)
    # Combined, so that a part holds its own rows only: slices would travel to their worker with
    # the whole table behind each of them.
    return [
        pa.Table.from_batches(batches[worker::workers], schema=table.schema).combine_chunks()
        for worker in range(workers)
    ]
