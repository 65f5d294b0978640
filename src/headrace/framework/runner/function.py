"""Runs a Python function that travels by cloudpickle."""

from __future__ import annotations

from typing import ClassVar

from headrace.framework.runner.base import EntryKind, Runner, RunnerCommand, RunnerContext

__all__ = ["FunctionRunner"]


class FunctionRunner(Runner):
    """Starts `python -u -m headrace.framework.runner`, which calls `entry(spec, link)`."""

    entry_kind: ClassVar[EntryKind] = "function"

    def command(self, context: RunnerContext) -> RunnerCommand:
        """Return the command; it needs nothing but the environment that the node sets."""
        return RunnerCommand(argv=(context.python, "-u", "-m", "headrace.framework.runner"))
