"""Runners: how the algorithm process of a node is started."""

from headrace.framework.runner.base import EntryKind, Runner, RunnerCommand, RunnerContext
from headrace.framework.runner.function import FunctionRunner
from headrace.framework.runner.script import ScriptRunner
from headrace.framework.runner.shipped import shipped_runner
from headrace.framework.runner.tensorboard import TensorBoardRunner

__all__ = [
    "EntryKind",
    "FunctionRunner",
    "Runner",
    "RunnerCommand",
    "RunnerContext",
    "ScriptRunner",
    "TensorBoardRunner",
    "shipped_runner",
]
