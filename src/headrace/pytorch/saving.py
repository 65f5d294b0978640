"""Where models go: files that a reader sees as a whole or not at all."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

import torch

from headrace.errors import ConfigError

__all__ = ["path_below", "require_writable", "save_atomically"]


def require_writable(directory: Path) -> None:
    """Make the directory and try to write to it, before anything is trained for it.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"headrace")
    except OSError as exc:
        msg = (
            f"output_dir={str(directory)!r}: the worker of rank 0, on host "
            f"{socket.gethostname()}, cannot write there: {exc}. Nothing was trained. Give a "
            "directory that this host can write to"
        )
        raise ConfigError(msg) from exc


def path_below(directory: Path, name: str) -> Path:
    """Return the path of `name` in `directory`.

    Raises:
        ConfigError: It would lead out of it.
    """
    path = directory / name
    if ".." in Path(name).parts or Path(name).is_absolute() or path == directory:
        msg = f"ctx.save(name={name!r}) must be a path below the output directory"
        raise ConfigError(msg)
    return path


def save_atomically(thing: Any, path: Path) -> None:
    """Write `thing` with `torch.save` to `path`, which is replaced in one step.

    A module is saved as its state dict (load with
    ``model.load_state_dict(torch.load(path))``), a scripted module by its own ``save``,
    anything else as it is. Missing directories are made. Tensors that are views are saved
    without the rest of their memory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if isinstance(thing, torch.jit.ScriptModule):
                torch.jit.save(thing, file)
            else:
                torch.save(_content(thing), file)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _content(thing: Any) -> Any:
    if not isinstance(thing, torch.nn.Module):
        return thing
    return {
        name: value.detach().cpu().clone() if isinstance(value, torch.Tensor) else value
        for name, value in thing.state_dict().items()
    }
