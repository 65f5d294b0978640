"""How good the model is on flights that it has not seen, against two baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from examples.flight_delays.features import CODES, LAST_TRAINING_MONTH, NUMBERS

__all__ = ["Error", "Floats", "Rows", "compare", "read_rows"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """How far predictions are off, in minutes: mean absolute and root mean square error."""

    mae_min: float
    rmse_min: float

    def __str__(self) -> str:
        return (
            f"{self.mae_min:6.2f} min mean absolute, {self.rmse_min:6.2f} min root mean square"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Flights as the SQL yields them."""

    numbers: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]
    late_min: Floats

    def __len__(self) -> int:
        return len(self.late_min)

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of all parts."""
        return cls(
            numbers=np.concatenate([part.numbers for part in parts]),
            codes=np.concatenate([part.codes for part in parts]),
            late_min=np.concatenate([part.late_min for part in parts]),
        )

    @classmethod
    def read(cls, file: Path) -> Rows:
        """Read what `write` has written."""
        with np.load(file) as columns:
            return cls(**columns)

    def write(self, file: Path) -> None:
        """Write the columns into an .npz file."""
        np.savez(file, numbers=self.numbers, codes=self.codes, late_min=self.late_min)


def read_rows(directory: Path) -> tuple[Rows, Rows]:
    """Read what the job has written of the view `features`.

    Returns:
        The rows to train on and the held-out rows.
    """
    names = ["month", *NUMBERS, *CODES, "late_min"]
    parts = [path for path in sorted(directory.iterdir()) if path.stat().st_size]
    table = pd.concat(pd.read_csv(path, names=names) for path in parts)
    is_training = table["month"] <= LAST_TRAINING_MONTH
    return _rows(table[is_training]), _rows(table[~is_training])


def compare(
    predicted_min: Floats, categories: list[int], training: Rows, held_out: Rows
) -> dict[str, Error]:
    """Return the held-out errors of the mean, of linear least squares and of the model.

    The baselines know the same training rows and the same features as the model; categories
    enter the linear one as one column per value.

    Args:
        predicted_min: What the model says of the held-out rows.
        categories: Distinct values of each code.
        training: What the model was trained on.
        held_out: Flights that it has not seen.
    """
    mean = np.full(len(held_out), training.late_min.mean())
    return {
        "mean": _error(mean, held_out),
        "linear": _error(_least_squares(categories, training, held_out), held_out),
        "model": _error(predicted_min, held_out),
    }


def _rows(table: pd.DataFrame) -> Rows:
    return Rows(
        numbers=table[list(NUMBERS)].to_numpy(np.float32),
        codes=table[list(CODES)].to_numpy(np.int64),
        late_min=table["late_min"].to_numpy(np.float64),
    )


def _least_squares(categories: list[int], training: Rows, held_out: Rows) -> Floats:
    # By the normal equations, which take k * k numbers however many rows there are; the small
    # ridge only decides between columns that say the same (one per category, and the constant).
    columns = _design(categories, training)
    gram = columns.T @ columns + 1e-6 * np.eye(columns.shape[1])
    weights = np.linalg.solve(gram, columns.T @ training.late_min)
    predicted: Floats = _design(categories, held_out) @ weights
    return predicted


def _design(categories: list[int], rows: Rows) -> Floats:
    indicators = [np.eye(count)[rows.codes[:, i]] for i, count in enumerate(categories)]
    return np.concatenate([rows.numbers, *indicators, np.ones((len(rows), 1))], axis=1)


def _error(predicted_min: Floats, rows: Rows) -> Error:
    off_min = predicted_min - rows.late_min
    return Error(
        mae_min=float(np.abs(off_min).mean()), rmse_min=float(np.sqrt((off_min**2).mean()))
    )
