"""Runners: how the algorithm process of a node is started."""

from headrace.framework.runner.base import Runner, RunnerCommand, RunnerContext
from headrace.framework.runner.function import FunctionRunner
from headrace.framework.runner.script import ScriptRunner

__all__ = ["FunctionRunner", "Runner", "RunnerCommand", "RunnerContext", "ScriptRunner"]
