"""Distributed TensorFlow jobs in Flink: batch mode and stream mode.

`train` plans a training; `TFContext` is what its entry functions get. `KerasEstimator` trains
without one. `predict` scores rows with a `SavedModel` or `KerasModel`. Planning imports neither
TensorFlow nor Keras; the processes do. They import this package too, so it imports pyflink only
when a job is planned.
"""

from __future__ import annotations

from headrace.estimator import EarlyStopping
from headrace.inference import PythonModel, predict
from headrace.tensorflow.context import TFContext
from headrace.tensorflow.entry import TFEntry
from headrace.tensorflow.estimator import FittedKerasModel, KerasEstimator
from headrace.tensorflow.job import train
from headrace.tensorflow.models import KerasModel, SavedModel
from headrace.tensorflow.ps_server import ServerEntry
from headrace.tensorflow.serving import serve
from headrace.tensorflow.settings import TFSettings

__all__ = [
    "EarlyStopping",
    "FittedKerasModel",
    "KerasEstimator",
    "KerasModel",
    "PythonModel",
    "SavedModel",
    "ServerEntry",
    "TFContext",
    "TFEntry",
    "TFSettings",
    "predict",
    "serve",
    "train",
]
