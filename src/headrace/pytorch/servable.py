"""The forms in which a PyTorch model is served for each completed checkpoint."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headrace.errors import ConfigError
from headrace.pytorch.saving import save_atomically
from headrace.role import Servable

__all__ = ["ExportedForm", "ScriptForm", "StateForm", "form_of"]


def form_of(model: nn.Module) -> Servable:
    """Return the form that `ctx.save` writes, too."""
    return ScriptForm(model) if isinstance(model, torch.jit.ScriptModule) else StateForm()


class StateForm:
    """The state dict alone, with memory of its own for each tensor."""

    suffix = ".pt"

    def write(self, state: Mapping[str, Any], path: Path) -> None:
        """Write it; see `Servable`."""
        save_atomically(
            {
                name: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
                for name, value in state.items()
            },
            path,
        )


class ScriptForm:
    """A scripted module as a whole, on the CPU, for evaluation."""

    suffix = ".pt"

    def __init__(self, model: torch.jit.ScriptModule) -> None:
        content = io.BytesIO()  # a deep copy of one takes gradients for values
        torch.jit.save(model, content)
        content.seek(0)
        self._copy = torch.jit.load(content, map_location="cpu").eval()

    def write(self, state: Mapping[str, Any], path: Path) -> None:
        """Write it; see `Servable`."""
        self._copy.load_state_dict(dict(state))
        save_atomically(self._copy, path)


class ExportedForm:
    """What `torch.export` makes of the model: traced once, on the CPU, for evaluation.

    Args:
        model: The model.
        example: Arguments of one call, at least 2 rows each.
        dynamic_shapes: As `torch.export.export` takes it; None: the first dimension of each
            argument, all of which are tensors, is the rows, as many as there are.

    Raises:
        ConfigError: It cannot be exported; the text has torch's reason.
    """

    suffix = ".pt2"

    def __init__(
        self, model: nn.Module, example: Sequence[Any], dynamic_shapes: Any = None
    ) -> None:
        args = tuple(_on_cpu(each) for each in example)
        if dynamic_shapes is None:
            dynamic_shapes = _rows_of(args)
        try:
            self._program = torch.export.export(
                copy.deepcopy(model).cpu().eval(), args, dynamic_shapes=dynamic_shapes
            )
        except Exception as exc:
            msg = (
                "ctx.exported: torch.export cannot export the model with this example: "
                f"{type(exc).__name__}: {exc}. Without `example` its state dict is written"
            )
            raise ConfigError(msg) from exc

    def write(self, state: Mapping[str, Any], path: Path) -> None:
        """Write it; see `Servable`."""
        with torch.no_grad():
            for name, value in self._program.state_dict.items():
                value.copy_(state[name])
        save_atomically(self._program, path)


def _on_cpu(value: Any) -> Any:
    return value.detach().cpu() if isinstance(value, torch.Tensor) else value


def _rows_of(args: tuple[Any, ...]) -> Any:
    rows = torch.export.Dim("rows")
    for each in args:
        if not isinstance(each, torch.Tensor) or not each.dim() or each.shape[0] < 2:
            is_tensor = isinstance(each, torch.Tensor)
            shape = tuple(each.shape) if is_tensor else type(each).__name__
            msg = (
                f"ctx.exported: an argument in `example` is {shape}; each must be a tensor of "
                "2 rows or more, so that torch.export takes any number of them. For others "
                "give `dynamic_shapes`"
            )
            raise ConfigError(msg)
    return tuple({0: rows} for _ in args)
