"""The batches of a worker as a torch dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from headrace.errors import UsageError

__all__ = ["BatchDataset", "split_rows"]

_NOT_HERE = (
    "ctx.dataset() works in the worker's own process only, since the memory queue has one "
    "reader: use DataLoader(ctx.dataset(...), num_workers=0). For more workers raise the "
    "role's parallelism."
)


class BatchDataset(IterableDataset[dict[str, Any]]):
    """What `ctx.batches` yields, for ``DataLoader(dataset, num_workers=0)``; see `ctx.dataset`.

    Elements are batches, or single rows that the loader groups; that costs Python time per
    row, so prefer batches and ``batch_size=None``.

    Iterating it reads the worker's input, so a second iteration goes on where the first
    stopped.
    """

    def __init__(self, read: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self._read = read

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if get_worker_info() is not None:
            raise UsageError(_NOT_HERE)
        return self._read()

    def __reduce__(self) -> Any:
        raise UsageError(_NOT_HERE)


def split_rows(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a batch, each as a mapping of column names to values."""
    columns = {
        name: column.unbind() if isinstance(column, torch.Tensor) else column
        for name, column in batch.items()
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
