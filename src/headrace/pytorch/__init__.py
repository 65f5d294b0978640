"""Distributed PyTorch jobs in Flink: batch mode and stream mode."""

from __future__ import annotations

from headrace.pytorch.context import TorchContext
from headrace.pytorch.entry import TorchEntry
from headrace.pytorch.settings import TorchSettings

__all__ = ["TorchContext", "TorchEntry", "TorchSettings"]
