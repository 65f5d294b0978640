"""The worker of `benchmarks.exports`: exports its model while it is told to."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.throughput_workers import BATCH_ROWS, torch_model, torch_step

__all__ = ["train_and_export"]


def train_and_export(ctx: Any, *, hidden: Sequence[int], steps: Path, switch: Path) -> None:
    """Train on the rows; write a line for each step, with the monotonic clock's seconds.

    Args:
        ctx: The context of a worker in a job with `export_to`.
        hidden: Widths of the hidden layers.
        steps: The file for the lines.
        switch: While there is no such file, the states of checkpoints are left alone.
    """
    import torch

    model = torch_model(hidden)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)  # the state is the model
    ctx.checkpointed(model=model, optimizer=optimizer)
    batches = iter(ctx.batches(rows=BATCH_ROWS))
    first = next(batches)
    _obey(ctx._exports, switch)  # noqa: SLF001 - there is no way to change a plan meanwhile
    with steps.open("a", buffering=1) as log:
        for batch in itertools.chain([first], batches):
            torch_step(model, optimizer, batch["x"])
            log.write(f"{time.monotonic():.6f}\n")


def _obey(exports: Any, switch: Path) -> None:
    offer = exports.offer

    def offer_if_on(checkpoint_id: int, file: Any) -> None:
        if switch.exists():
            offer(checkpoint_id, file)

    exports.offer = offer_if_on
