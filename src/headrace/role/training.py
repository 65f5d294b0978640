"""The context of a process that trains: what all frameworks have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace.errors import UsageError
from headrace.role.arrays import NullRule
from headrace.role.context import RoleContext
from headrace.role.output_dir import path_below, require_writable
from headrace.role.settings import TrainingSettings

__all__ = ["TrainingContext"]


class TrainingContext(RoleContext):
    """A `RoleContext` that knows what the training was planned with.

    Framework layers derive from it; their `save` asks `output_path` where, and `is_saver`
    whether, and only has to write the thing. Thread model: as `RoleContext`.

    Attributes:
        settings: What holds for every process of the training.
    """

    settings = TrainingSettings()

    def use_settings(self, settings: TrainingSettings) -> None:
        """Take what the job was planned with; `RoleEntry.prepare` of a framework calls this.

        Raises:
            ConfigError: This process is to save, and cannot write to the output directory.
        """
        self.settings = settings
        if self.is_saver and settings.output_dir is not None:
            require_writable(settings.output_dir)

    @property
    def epochs(self) -> int:
        """Passes over the input that the job was planned with."""
        return self.settings.epochs

    @property
    def is_saver(self) -> bool:
        """Whether `save` writes in this process; it does in one only, that of index 0."""
        return self.index == 0

    def batches(
        self,
        rows: int = 1024,
        epochs: int | None = None,
        *,
        nulls: NullRule = "error",
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the input as in `RoleContext.batches`.

        Args:
            rows: Rows per batch of this process, at least 1.
            epochs: Passes over a bounded input; None: what the job was planned with.
            nulls: "error", or "mask" for a second array `<column>__valid`.
            timeout_s: Longest wait for one batch, in seconds; None waits as long as the job
                runs.
        """
        return super().batches(rows, self._passes(epochs), nulls=nulls, timeout_s=timeout_s)

    def arrow_batches(
        self, rows: int = 1024, epochs: int | None = None, *, timeout_s: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over the input as Arrow record batches; else like `batches`."""
        return super().arrow_batches(rows, self._passes(epochs), timeout_s=timeout_s)

    def output_path(self, name: str) -> Path:
        """Return where `save` puts the file or directory `name`, the same in every process.

        Raises:
            UsageError: The job was planned without `output_dir`.
            ConfigError: `name` leads out of the output directory.
        """
        if self.settings.output_dir is None:
            msg = "ctx.save needs a place: plan the training with an output_dir"
            raise UsageError(msg)
        return path_below(self.settings.output_dir, name)

    def _passes(self, epochs: int | None) -> int:
        return self.epochs if epochs is None else epochs
