"""What every worker of a `KerasEstimator` is told. Imports neither TensorFlow nor Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.estimator import EarlyStopping, FitRecord
from headrace.inference import Inputs, Source
from headrace.tensorflow.context import TFContext

__all__ = ["MODEL_FILE", "Fitting"]

MODEL_FILE = "model.keras"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The training function of an estimator: its parameters; travels to the workers.

    Attributes: those of `KerasEstimator`, and `record`, which is written beside the model.
    """

    model: Callable[[], Any]
    loss: Any
    optimizer: Any
    features: Inputs
    label: Source
    batch_rows: int
    schedule: Callable[[int, float], float] | None
    metrics: Sequence[Any] | Mapping[str, Any]
    early_stopping: EarlyStopping | None
    seed: int
    record: FitRecord

    def __call__(self, ctx: TFContext) -> None:
        """Train; worker 0 saves the model and its history into the output directory."""
        from headrace.tensorflow.fit_worker import fit

        fit(self, ctx)
