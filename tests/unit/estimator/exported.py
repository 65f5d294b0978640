"""Fits whose checkpoints complete at once, so that each gives a version of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.exchange import Item, StateFile
from headrace.role.state_format import decode_state
from tests.unit.role.test_restored_passes import SlowBarriers
from tests.waiting import until

KEPT = 1_000
"""More versions than any fit here makes."""


class Completing(SlowBarriers):
    """Says that a checkpoint is complete once it is acknowledged, and waits for its version.

    Args:
        items: What is fed.
        table: Has the schema of the input.
        served: The directory of `export_to`.
        suffix: How the names of its files end.
    """

    def __init__(
        self, items: Sequence[Item], table: pa.Table, served: Path, suffix: str
    ) -> None:
        super().__init__(items, input_schema=table.schema)
        self._served = served
        self._suffix = suffix

    def acknowledge(self, checkpoint_id: int, state: StateFile | None = None) -> None:
        super().acknowledge(checkpoint_id, state)
        self.complete(checkpoint_id)
        until(self.version_of(checkpoint_id).exists, "the version")

    def version_of(self, checkpoint_id: int) -> Path:
        return self._served / f"checkpoint-{checkpoint_id}{self._suffix}"

    def held(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Each version, with the objects that its checkpoint holds."""
        for checkpoint_id, content in self.states:
            if checkpoint_id is not None:
                state = decode_state(memoryview(bytearray(content)))
                yield self.version_of(checkpoint_id), state["objects"]
