"""The twin in PyTorch: two workers whose every step is that of one process."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyflink.table import StreamTableEnvironment
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import headrace.pytorch
from examples.flight_delays.evaluation import Floats, Rows
from examples.flight_delays.features import CODES, HOUR_MIN, NUMBERS, training_rows
from examples.flight_delays.history import HISTORY_FILE, write_history
from headrace.operator.training import TrainingPlan
from headrace.pytorch import TorchContext

__all__ = ["plan", "predict"]

_MODEL_FILE = "model.pt2"
_SHUFFLED_ROWS = 32_768
_AVERAGE_DECAY = 0.99


def plan(
    t_env: StreamTableEnvironment,
    out: Path,
    *,
    categories: Sequence[int],
    workers: int,
    epochs: int,
) -> TrainingPlan:
    """Plan the training on the view `features`; everything that it writes goes into `out`."""
    return headrace.pytorch.train(
        training_rows(t_env),
        functools.partial(train, categories=categories),
        workers=workers,
        epochs=epochs,
        output_dir=out,
        name="flight-delays",
    )


def predict(out: Path, rows: Rows, **_: Any) -> Floats:
    """Return how late the trained model expects the flights, in minutes, shape (rows,)."""
    model = torch.export.load(out / _MODEL_FILE).module()
    with torch.no_grad():
        predicted = model(
            torch.from_numpy(rows.numbers), torch.from_numpy(rows.codes.astype(np.int32))
        )
    predicted_min: Floats = predicted.numpy().astype(np.float64)
    return predicted_min


def train(ctx: TorchContext, *, categories: Sequence[int], seed: int = 2013) -> None:
    """Train on the stream; rank 0 saves the model and the history of its steps.

    The history holds each step's loss, and the loss of guessing the mean of the step's rows: in
    summer, when delays vary more, both are higher.

    Two things make up for a stream that comes in the order of the calendar: a buffer that mixes
    months, and a running average of the weights, which is what is saved.

    Args:
        ctx: This worker.
        categories: Distinct values of each code.
        seed: Of the first weights and of the shuffling.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # one core for each worker
    model = DelayModel(len(NUMBERS), categories)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_AVERAGE_DECAY))
    # As a hook it also runs in steps that this worker only joins, so all averages are the same.
    optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
    model = ctx.data_parallel(model, optimizer)
    buffer = ShuffleBuffer(_SHUFFLED_ROWS, seed=seed + ctx.rank)
    losses, guesses = [], []
    for batch in ctx.batches(rows=1024):
        numbers, codes, late_min = buffer.swap(
            batch["numbers"], batch["codes"], batch["late_min"]
        )
        predicted_min = model(numbers, codes)
        loss = _loss(predicted_min, late_min)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        guesses.append(_loss(late_min.mean().expand_as(late_min), late_min).item())
        ctx.report(loss=losses[-1], epoch=ctx.epoch)
    ctx.save(exported(average.module), _MODEL_FILE)
    if ctx.is_saver:
        write_history(ctx.output_path(HISTORY_FILE), losses, guesses)


def exported(model: nn.Module) -> torch.export.ExportedProgram:
    """Return the model as a whole, for any number of rows: who scores needs no class."""
    example = torch.zeros(2, len(NUMBERS)), torch.zeros(2, len(CODES), dtype=torch.int32)
    any_rows = {0: torch.export.Dim.DYNAMIC}
    return torch.export.export(
        model.eval(), example, dynamic_shapes={"numbers": any_rows, "codes": any_rows}
    )


def _loss(predicted_min: torch.Tensor, late_min: torch.Tensor) -> torch.Tensor:
    """Return the Huber loss, in hours: few flights are very late, and nobody foresees them."""
    return torch.nn.functional.huber_loss(
        predicted_min / HOUR_MIN, late_min / HOUR_MIN, delta=1.5
    )


class ShuffleBuffer:
    """Exchanges rows of each batch with rows that came earlier. One thread.

    Args:
        rows: Rows that are kept back, copied.
        seed: Of the choice.
    """

    def __init__(self, rows: int, *, seed: int) -> None:
        self._rows = rows
        self._random = torch.Generator().manual_seed(seed)
        self._kept: list[torch.Tensor] = []

    def swap(self, *columns: torch.Tensor) -> list[torch.Tensor]:
        """Take a batch in and hand out as many rows: its own while the buffer fills."""
        given = [column.clone() for column in columns]  # a batch lies in shared memory
        if not self._kept or len(self._kept[0]) + len(given[0]) <= self._rows:
            before = self._kept or [column[:0] for column in given]
            self._kept = [torch.cat(pair) for pair in zip(before, given, strict=True)]
            return given
        choice = torch.randperm(len(self._kept[0]), generator=self._random)[: len(given[0])]
        taken = [column[choice] for column in self._kept]
        for kept, new in zip(self._kept, given, strict=True):
            kept[choice] = new
        return taken


class DelayModel(nn.Module):
    """Maps a flight's numbers and codes to how late it arrives, in minutes.

    Args:
        numbers: Numeric features.
        categories: Distinct values of each code.
    """

    def __init__(self, numbers: int, categories: Sequence[int]) -> None:
        super().__init__()
        widths = [min(8, (count + 1) // 2) for count in categories]
        self.embeddings = nn.ModuleList(
            nn.Embedding(count, width) for count, width in zip(categories, widths, strict=True)
        )
        self.layers = nn.Sequential(
            nn.Linear(numbers + sum(widths), 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 1),
        )

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return minutes, shape (rows,), for `numbers` (rows, n) and `codes` (rows, k)."""
        embedded = [embed(codes[:, i]) for i, embed in enumerate(self.embeddings)]
        hours: torch.Tensor = self.layers(torch.cat([numbers, *embedded], dim=1))
        return HOUR_MIN * hours.squeeze(1)  # the layers work with values of about 1
