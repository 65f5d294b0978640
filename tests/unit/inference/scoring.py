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
    reports: list[dict[str, float]] | None = None,
    **settings: Any,
) -> pa.Table:
    """What comes out of a worker that gets `table` in batches of `receive_rows`.

    `reports` gets the values that it reports.
    """
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
    link = FakeLink()
    with tempfile.TemporaryDirectory() as folder:
        entry(spec_in(Path(folder)), link, feed=feed)
    assert feed.has_sent_end
    if reports is not None:
        reports.extend(values for values, _, _ in link.reports)
    return feed.output
