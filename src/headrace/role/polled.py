"""What a `BatchReader` answers when it is asked for the next batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import pyarrow as pa

__all__ = ["EpochEnded", "InputEnded", "PollResult", "ReadyBatch"]


class ReadyBatch(NamedTuple):
    """Rows to handle now; asking for more says that they were handled.

    A tuple, since it is made quickly: later passes make one for each batch.

    Attributes:
        columns: 1 to `rows` rows; the memory stays valid for as long as anything refers to it.
        timestamps_ms: int64, one per row, NULL where the row has none; None if no row has one.
        epoch: Pass over the input, from 0.
    """

    columns: pa.RecordBatch
    timestamps_ms: pa.Array | None
    epoch: int


@dataclass(frozen=True, slots=True)
class EpochEnded:
    """Every row of the pass `epoch` was handled. Comes once for each pass, an empty one too."""

    epoch: int


@dataclass(frozen=True, slots=True)
class InputEnded:
    """All passes are over. Comes from then on."""


PollResult: TypeAlias = ReadyBatch | EpochEnded | InputEnded
