"""Distributed TensorFlow jobs in Flink: batch mode and stream mode.

`train` plans a job; `TFContext` is what its entry functions get. Planning imports neither
TensorFlow nor Keras; the processes do. They import this package too, so it imports pyflink only
when a job is planned.
"""

from __future__ import annotations

from headrace.tensorflow.context import TFContext
from headrace.tensorflow.entry import TFEntry
from headrace.tensorflow.job import train
from headrace.tensorflow.ps_server import ServerEntry
from headrace.tensorflow.serving import serve
from headrace.tensorflow.settings import TFSettings

__all__ = ["ServerEntry", "TFContext", "TFEntry", "TFSettings", "serve", "train"]
