"""The runners that come with Headrace, by name."""

from __future__ import annotations

from headrace.errors import PlanError
from headrace.framework.runner.base import Runner
from headrace.framework.runner.function import FunctionRunner
from headrace.framework.runner.script import ScriptRunner
from headrace.framework.runner.tensorboard import TensorBoardRunner

__all__ = ["shipped_runner"]

_SHIPPED: dict[str, type[Runner]] = {
    "function": FunctionRunner,
    "script": ScriptRunner,
    "tensorboard": TensorBoardRunner,
}


def shipped_runner(name: str) -> type[Runner]:
    """Return the shipped runner `name`.

    Raises:
        PlanError: There is none of that name.
    """
    try:
        return _SHIPPED[name]
    except KeyError:
        msg = (
            f"There is no runner {name!r}; shipped are {sorted(_SHIPPED)}. An own one is "
            "passed as a subclass of headrace.framework.Runner."
        )
        raise PlanError(msg) from None
