"""Scores a table in this process, as a worker does."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.exchange import MemoryFeed
from headrace.inference import Model, ScoringEntry, ScoringSettings
from tests.unit.role.doubles import FakeLink, spec_in


def score(
    table: pa.Table,
    model: Model,
    outputs: dict[str, pa.DataType],
    *,
    keep: Sequence[str] | None = None,
    receive_rows: int = 4096,
    **settings: Any,
) -> pa.Table:
    """What comes out of a worker that gets `table` in batches of `receive_rows`."""
    kept = tuple(table.schema.names if keep is None else keep)
    chosen = ScoringSettings(kept=kept, outputs=tuple(outputs), **settings)
    fields = [table.schema.field(name) for name in kept]
    fields += [pa.field(name, kind) for name, kind in outputs.items()]
    if chosen.error_column is not None:
        fields.append(pa.field(chosen.error_column, pa.string()))
    if chosen.version_column is not None:
        fields.append(pa.field(chosen.version_column, pa.timestamp("ms", "UTC")))
    feed = MemoryFeed.of_table(table, batch_rows=receive_rows, output_schema=pa.schema(fields))
    entry = ScoringEntry(model, chosen)
    with tempfile.TemporaryDirectory() as folder:
        entry(spec_in(Path(folder)), FakeLink(), feed=feed)
    assert feed.has_sent_end
    return feed.output
