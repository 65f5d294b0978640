"""Distributed PyTorch jobs in Flink: batch mode and stream mode.

`train` plans a job; `TorchContext` is what its entry function gets. Worker processes import
this package too, so it imports pyflink only when a job is planned.
"""

from __future__ import annotations

from headrace.operator.training import TrainingPlan
from headrace.pytorch.context import TorchContext
from headrace.pytorch.entry import TorchEntry
from headrace.pytorch.job import train
from headrace.pytorch.settings import TorchSettings

__all__ = ["TorchContext", "TorchEntry", "TorchSettings", "TrainingPlan", "train"]
