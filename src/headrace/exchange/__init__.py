"""The memory queue between a Flink operator and its algorithm process (the process's side).

`Channel` is the queue; `Feed` is what a reader may expect of it; `MemoryFeed` is the same
without Flink. Imports pyarrow and NumPy, nothing of Flink or of a deep-learning framework.

Source: docs/exchange.md.
"""

from __future__ import annotations

from headrace.exchange.channel import Channel
from headrace.exchange.conform import conform, conform_column, require_names
from headrace.exchange.feed import Feed
from headrace.exchange.items import (
    TIMESTAMP_COLUMN,
    TIMESTAMP_FIELD,
    Barrier,
    Batch,
    End,
    Item,
    Watermark,
    stamped,
    unstamped,
)
from headrace.exchange.memory_feed import MemoryFeed
from headrace.exchange.rebatch import Rebatcher
from headrace.exchange.spool import NO_ROWS, Spool, SpoolContent, SpoolWriter
from headrace.exchange.state_files import StateFile, StateFiles

__all__ = [
    "NO_ROWS",
    "TIMESTAMP_COLUMN",
    "TIMESTAMP_FIELD",
    "Barrier",
    "Batch",
    "Channel",
    "End",
    "Feed",
    "Item",
    "MemoryFeed",
    "Rebatcher",
    "Spool",
    "SpoolContent",
    "SpoolWriter",
    "StateFile",
    "StateFiles",
    "Watermark",
    "conform",
    "conform_column",
    "require_names",
    "stamped",
    "unstamped",
]
