"""Torch's compiler, which optimizers import although nothing is compiled."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

import torch

__all__ = ["put_off_compiler"]

_COMPILER = "torch._dynamo"


def put_off_compiler() -> None:
    """Let optimizers import Torch's compiler only when something is compiled.

    The first optimizer imports `torch._dynamo`, 800 modules that take as long as the rest of
    torch, to tell it what not to trace and where to break its graph. Nobody traces before that
    module is there; so until then the optimizers of `torch.optim` do the same without telling,
    and from then on what they have always done. Does nothing if it is there already.
    """
    if _COMPILER in sys.modules:
        return
    for each in {torch.optim.Optimizer, *filter(inspect.isclass, vars(torch.optim).values())}:
        for name, method in list(vars(each).items()):
            if not inspect.isfunction(method):
                continue
            source = method.__code__.co_filename.replace("\\", "/")
            if source.endswith("torch/_compile.py"):
                setattr(each, name, _until_compiler(method, inspect.unwrap(method)))
            elif method.__code__.co_name == "_use_grad":
                plain = _with_grad_as_told(inspect.unwrap(method))
                setattr(each, name, _until_compiler(method, plain))


def _until_compiler(
    informing: Callable[..., Any], plain: Callable[..., Any]
) -> Callable[..., Any]:
    @functools.wraps(informing)
    def method(*args: Any, **kwargs: Any) -> Any:
        return (informing if _COMPILER in sys.modules else plain)(*args, **kwargs)

    return method


def _with_grad_as_told(step: Callable[..., Any]) -> Callable[..., Any]:
    """Do what is between the graph breaks of `_use_grad_for_differentiable`."""

    def with_grad(self: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return step(self, *args, **kwargs)

    return with_grad
