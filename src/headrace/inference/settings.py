"""What holds for every worker of a scoring."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from headrace._counts import require_count
from headrace.errors import ConfigError
from headrace.inference.inputs import Inputs, require_inputs

__all__ = ["Postprocess", "Reload", "ScoringSettings"]

Reload: TypeAlias = Literal["path changes"]
Postprocess: TypeAlias = Callable[[Any, Mapping[str, Any]], Any]
"""From what the model returned, and the columns of the batch by name, to the outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringSettings:
    """How rows are scored.

    Attributes:
        kept: Columns of the input that pass through, in order.
        outputs: Names of the columns that the scores become, in order.
        inputs: What of a row goes into the model; see `Inputs`. None: by the model's own names.
        postprocess: Makes the outputs of what the model returned.
        batch_rows: Most rows in one call of the model.
        on_error: What becomes of a row that cannot be scored: "fail" fails the job, "null"
            makes its outputs NULL.
        error_column: Name of the STRING column that says why a row has none; None without one.
        threads: With how many threads a worker computes; None: its share of the host's cores.
        reload: "path changes": a new version of the model takes over where its path changes.
            None: the version at the start scores to the end.
        reload_every_s: Seconds between two looks at the path.
        version_column: Name of the column that says which version scored a row: when its files
            were changed. None without one.
    """

    kept: tuple[str, ...]
    outputs: tuple[str, ...]
    inputs: Inputs = None
    postprocess: Postprocess | None = None
    batch_rows: int = 1024
    on_error: Literal["fail", "null"] = "fail"
    error_column: str | None = None
    threads: int | None = None
    reload: Reload | None = None
    reload_every_s: float = 10.0
    version_column: str | None = None

    def __post_init__(self) -> None:
        require_inputs(self.inputs)
        object.__setattr__(self, "batch_rows", require_count("batch_rows", self.batch_rows))
        if self.threads is not None:
            object.__setattr__(self, "threads", require_count("threads", self.threads))
        if self.on_error not in ("fail", "null"):
            msg = f"on_error={self.on_error!r} must be 'fail' or 'null'"
            raise ConfigError(msg)
        if self.error_column is not None and self.on_error == "fail":
            msg = (
                f"error_column={self.error_column!r} would always be NULL: with "
                "on_error='fail' a row that cannot be scored fails the job. Choose "
                "on_error='null'"
            )
            raise ConfigError(msg)
        if self.reload not in (None, "path changes"):
            msg = f"reload={self.reload!r} must be None or 'path changes'"
            raise ConfigError(msg)
        if not 0 < self.reload_every_s < math.inf:
            msg = f"reload_every_s={self.reload_every_s!r} must be a number of seconds above 0"
            raise ConfigError(msg)
        if not self.outputs:
            msg = "outputs={} names no column; name at least one, with its type"
            raise ConfigError(msg)
        added = filter(None, [self.error_column, self.version_column])
        columns = [*self.kept, *self.outputs, *added]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            msg = (
                f"Columns {twice} are there twice: among those that pass through "
                f"({', '.join(self.kept)}) and those that are new "
                f"({', '.join(columns[len(self.kept) :])}). Rename one, or leave it out of "
                "`keep`"
            )
            raise ConfigError(msg)
