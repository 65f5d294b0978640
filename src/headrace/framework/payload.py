"""What travels by cloudpickle: the entry function, an own runner class, an own state machine.

Each part is pickled for itself, so that a node that needs the runner class does not import
what the entry function imports.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import cloudpickle

from headrace.errors import ConfigError, PlanError

if TYPE_CHECKING:
    from headrace.framework.machine import Machine
    from headrace.framework.runner import Runner

__all__ = ["dump_payload", "load_entry", "load_machine", "load_runner"]

_Part = Literal["entry", "runner", "machine"]


def dump_payload(
    *,
    entry: object = None,
    runner: type[Runner] | None = None,
    machine: Machine | None = None,
) -> bytes:
    """Return the bytes of a payload file.

    Args:
        entry: Called as `entry(spec, link)` in the algorithm process; None for a script.
        runner: An own runner class; None if a shipped one is named in the node's spec.
        machine: An own state machine; None if a shipped one is named in the master's spec.

    Raises:
        PlanError: A part cannot be pickled; the text names what and why.
    """
    parts = {"entry": entry, "runner": runner, "machine": machine}
    return pickle.dumps(
        {name: _dump(name, part) for name, part in parts.items() if part is not None},
        protocol=4,
    )


def load_entry(path: str | Path) -> Any:
    """Return the entry of a payload file. Runs the imports that it needs.

    Raises:
        ConfigError: It cannot be loaded here; the text says what to ship.
    """
    return _load(path, "entry")


def load_runner(path: str | Path) -> type[Runner]:
    """Return the runner class of a payload file. Raises as `load_entry`."""
    return cast("type[Runner]", _load(path, "runner"))


def load_machine(path: str | Path) -> Machine:
    """Return the state machine of a payload file. Raises as `load_entry`."""
    return cast("Machine", _load(path, "machine"))


def _dump(name: str, part: object) -> bytes:
    try:
        return cast("bytes", cloudpickle.dumps(part))
    except Exception as exc:
        msg = (
            f"The {name} {part!r} cannot be pickled: {type(exc).__name__}: {exc}. It travels "
            "to the cluster by cloudpickle; open files, locks, sessions and connections inside "
            "the function instead of capturing them."
        )
        raise PlanError(msg) from exc


def _load(path: str | Path, name: _Part) -> object:
    parts = _read(path)
    if name not in parts:
        msg = f"The payload {path} holds no {name}, only {sorted(parts)}."
        raise ConfigError(msg)
    try:
        return pickle.loads(parts[name])  # noqa: S301 - the job's own file
    except ModuleNotFoundError as exc:
        msg = (
            f"The {name} cannot be loaded here: {exc}. Ship the module {exc.name!r} with the "
            "job: add_python_file for a file or package of yours, set_python_requirements or "
            "add_python_archive for an installed one."
        )
        raise ConfigError(msg) from exc
    except Exception as exc:
        msg = (
            f"The {name} cannot be loaded here: {type(exc).__name__}: {exc}. The versions of "
            "Python and of the modules it uses must fit those of the program that planned it."
        )
        raise ConfigError(msg) from exc


def _read(path: str | Path) -> dict[str, bytes]:
    try:
        data = Path(path).read_bytes()
        return cast("dict[str, bytes]", pickle.loads(data))  # noqa: S301 - owner-only
    except Exception as exc:
        msg = f"The payload {path} cannot be read: {type(exc).__name__}: {exc}"
        raise ConfigError(msg) from exc
