"""Models of PyTorch that score rows."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn
from torch.export.passes import move_to_device_pass

from headrace._environ import NEEDS_GPU, environment_value
from headrace.errors import ConfigError
from headrace.inference import LoadedModel, TensorSpec, absolute_path, in_own_memory
from headrace.pytorch.device import choose_device
from headrace.pytorch.tensors import TensorConverter

__all__ = ["LoadedModule", "TorchModel"]

_Kind = Literal["export", "script", "state"]


@dataclass(frozen=True, slots=True)
class TorchModel:
    """A model of PyTorch in a file.

    Attributes:
        path: What `torch.export.save` (.pt2) or `torch.jit.save` wrote; or a state dict, as
            `ctx.save` and `torch.save(model.state_dict(), path)` write it. A relative one is
            taken from here.
        module: For a state dict: makes the module that it belongs to, for example its class.
            Travels by cloudpickle.

    Raises:
        ConfigError: `module` is a module itself, or `path` a local URI with a host.

    Example:
        >>> TorchModel("trained/model.pt", Delay)  # doctest: +SKIP
    """

    path: str | Path
    module: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute_path(self.path))
        module: object = self.module
        if module is not None and (isinstance(module, nn.Module) or not callable(module)):
            msg = (
                f"TorchModel(module={type(module).__name__}(...)) must be what makes the "
                "module, for example its class, not the module itself"
            )
            raise ConfigError(msg)

    def load(self, threads: int | None, copy: Path | None = None) -> LoadedModel:
        """Read the model, ready for inference.

        Onto the GPU that this worker has for itself, else the first of CUDA_VISIBLE_DEVICES,
        else the CPU. Arguments as `Model.load`.

        Returns:
            The model; it is called with tensors on that device.

        Raises:
            ConfigError: There is no such file, it is of another kind, its state does not fit
                the module, or there is no GPU and `predict` was told device="cuda".
        """
        if threads is not None:
            torch.set_num_threads(threads)
        path = copy or Path(self.path)
        kind = _kind_of(path)
        if (kind == "state") != (self.module is not None):
            raise ConfigError(_wrong_kind(path, kind, self.module))
        is_required = environment_value(NEEDS_GPU) is not None
        device = choose_device(["here"], 0, is_required=is_required)
        if kind == "script":
            return _Script(torch.jit.load(str(path), map_location=device).eval(), device)
        if kind == "export":
            return _Exported(path, device)
        assert self.module is not None
        return _Module(_restored(self.module(), path).to(device), device)


class LoadedModule:
    """A module, and tensors for it on its device; what all kinds have in common."""

    inputs: tuple[TensorSpec, ...] | None = None
    is_ordered = True
    takes_columns = False
    can_try = True

    def __init__(self, module: nn.Module, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._converters: dict[tuple[str, ...], TensorConverter] = {}

    def columns(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        """See `LoadedModel`."""
        names = tuple(batch.schema.names)  # a column has one type as long as the worker lives
        converter = self._converters.get(names)
        if converter is None:
            converter = self._converters[names] = TensorConverter(batch.schema)
        return {name: self._own(column) for name, column in converter(batch).items()}

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        """See `LoadedModel`."""
        return torch.from_numpy(array).to(self._device)

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """See `LoadedModel`."""
        with torch.inference_mode():
            return in_own_memory(self._module(*args, **named))

    def _own(self, column: Any) -> Any:
        """Return a copy: a layer that works in place would write to the queue's memory."""
        if not isinstance(column, torch.Tensor):
            return column
        return column.to(self._device, copy=True)


class _Module(LoadedModule):
    def __init__(self, module: nn.Module, device: torch.device) -> None:
        super().__init__(module.eval(), device)
        self._parameters = inspect.signature(module.forward)

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        try:
            self._parameters.bind(*args, **named)
        except TypeError as exc:
            kind = type(self._module).__name__
            given = [f"{len(args)} arguments", *named]
            msg = f"{kind}.forward{self._parameters} is given {', '.join(given)}: {exc}"
            raise ConfigError(msg) from exc
        return super().__call__(args, named)


class _Script(LoadedModule):
    pass


class _Exported(LoadedModule):
    def __init__(self, path: Path, device: torch.device) -> None:
        with path.open("rb") as file:  # by a path it wants the ending .pt2
            program = torch.export.load(file)
        positional, named = _arguments(program)
        self.inputs = _declared(path, program, [*positional, *named])
        self._positional = positional
        if device.type != "cpu":
            program = move_to_device_pass(program, device)
        super().__init__(program.module(), device)

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Give by position what the model was exported with by position."""
        rest = dict(named)
        args = [*args, *(rest.pop(name) for name in self._positional[len(args) :])]
        return super().__call__(args, rest)


def _declared(
    path: Path, program: torch.export.ExportedProgram, names: Sequence[str]
) -> tuple[TensorSpec, ...]:
    """Return what an exported program takes, in order."""
    values = {
        node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
    }
    specs = []
    for name, node in zip(names, program.graph_signature.user_inputs, strict=False):
        value = values.get(str(node))
        if not isinstance(value, torch.Tensor):
            specs.append(TensorSpec(name))
            continue
        sizes: tuple[object, ...] = tuple(value.shape)  # symbols where any size will do
        shape = tuple(size if isinstance(size, int) else None for size in sizes)
        if shape and shape[0] is not None:
            msg = (
                f"{path}: input {name!r} was exported for exactly {shape[0]} rows. Export it "
                "for any number: torch.export.export(model, args, dynamic_shapes="
                '{"' + name + '": {0: torch.export.Dim.DYNAMIC}})'
            )
            raise ConfigError(msg)
        specs.append(TensorSpec(name, _numpy_name(value.dtype), shape))
    return tuple(specs)


def _numpy_name(dtype: torch.dtype) -> str | None:
    """Return NumPy's name of a type; None where it has none, such as bfloat16."""
    try:
        return str(torch.empty(0, dtype=dtype).numpy().dtype)
    except TypeError:
        return None


def _arguments(program: torch.export.ExportedProgram) -> tuple[list[str], list[str]]:
    """Return the names of what `forward` was given by position, and by name."""
    names = [str(node) for node in program.graph_signature.user_inputs]
    spec = program.call_spec.in_spec
    named = [] if spec is None else [str(name) for name in spec.children()[1].context]
    return names[: len(names) - len(named)], named


def _kind_of(path: Path) -> _Kind:
    if not path.exists():
        msg = f"There is no model at {path} on this host"
        raise ConfigError(msg)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError) as exc:
        msg = f"{path} is no model that torch.save, torch.jit.save or torch.export.save wrote"
        raise ConfigError(msg) from exc
    if any(name.endswith("archive_format") or "/models/" in name for name in names):
        return "export"
    if any("/code/" in name for name in names):
        return "script"
    return "state"


def _wrong_kind(path: Path, kind: _Kind, module: object) -> str:
    if kind == "state":
        return (
            f"{path} is no whole model but a state dict: say what it belongs to, for example "
            "TorchModel(path, MyModule)"
        )
    written = {"script": "torch.jit.save", "export": "torch.export.save"}[kind]
    return f"{path} was written by {written} and is a whole model: leave out {module!r}"


def _restored(module: nn.Module, path: Path) -> nn.Module:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
    except Exception as exc:  # torch has no class of its own for this
        msg = f"{path} does not fit {type(module).__name__}: {exc}"
        raise ConfigError(msg) from exc
    return module
