"""How a model is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headrace.role import replacing

__all__ = ["save_atomically"]


def save_atomically(thing: Any, path: Path) -> None:
    """Write `thing` to `path`, which is replaced in one step.

    A module is saved as its state dict (load with
    ``model.load_state_dict(torch.load(path))``), a scripted one by ``torch.jit.save``, what
    ``torch.export.export`` returned by ``torch.export.save``, anything else by ``torch.save``.
    Missing directories are made. Tensors that are views are saved without the rest of their
    memory.
    """
    with replacing(path) as file:
        if isinstance(thing, torch.jit.ScriptModule):
            torch.jit.save(thing, file)
        elif isinstance(thing, torch.export.ExportedProgram):
            torch.export.save(thing, file)
        else:
            torch.save(_content(thing), file)


def _content(thing: Any) -> Any:
    if not isinstance(thing, torch.nn.Module):
        return thing
    return {
        name: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
        for name, value in thing.state_dict().items()
    }
