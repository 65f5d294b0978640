"""Distributed PyTorch jobs in Flink: batch mode and stream mode.

`train` plans a training; `TorchContext` is what its entry function gets. `TorchEstimator`
trains without one. `predict` scores rows with a `TorchModel`. Worker processes import this
package too, so it imports pyflink only when a job is planned.
"""

from __future__ import annotations

from headrace.estimator import EarlyStopping
from headrace.inference import PythonModel, predict
from headrace.operator.training import TrainingPlan
from headrace.pytorch.context import TorchContext
from headrace.pytorch.entry import TorchEntry
from headrace.pytorch.estimator import FittedTorchModel, TorchEstimator
from headrace.pytorch.job import train
from headrace.pytorch.models import TorchModel
from headrace.pytorch.settings import TorchSettings

__all__ = [
    "EarlyStopping",
    "FittedTorchModel",
    "PythonModel",
    "TorchContext",
    "TorchEntry",
    "TorchEstimator",
    "TorchModel",
    "TorchSettings",
    "TrainingPlan",
    "predict",
    "train",
]
