"""The only place that reads or changes the process environment."""

from __future__ import annotations

import os

__all__ = [
    "ARCHIVES",
    "LEASED_GPU",
    "LINK_FD",
    "NEEDS_GPU",
    "PROCESS_SPEC",
    "copy_environment",
    "environment_value",
    "set_environment_default",
    "set_environment_value",
]

ARCHIVES = "_PYTHON_WORKING_DIR"
"""Directory with what `add_python_archive` has unpacked; PyFlink's manager sets it."""

LEASED_GPU = "HEADRACE_LEASED_GPU"
"""The one GPU that an algorithm process has for itself; not set without a lease."""

NEEDS_GPU = "HEADRACE_NEEDS_GPU"
"""Set for processes of `predict` that must not compute on the CPU."""

LINK_FD = "HEADRACE_LINK_FD"
"""Number of the inherited socket to the node; set for algorithm processes."""

PROCESS_SPEC = "HEADRACE_PROCESS_SPEC"
"""Path of the JSON file that describes an algorithm process; set for algorithm processes."""


def environment_value(name: str) -> str | None:
    """Return the value of the variable `name`, or None if it is not set."""
    return os.environ.get(name)


def copy_environment() -> dict[str, str]:
    """Return a copy of the whole environment, to start a child with."""
    return dict(os.environ)


def set_environment_default(name: str, value: str) -> None:
    """Set the variable `name` of this process, also for C code, unless it is set already."""
    os.environ.setdefault(name, value)


def set_environment_value(name: str, value: str) -> None:
    """Set the variable `name` of this process, also for C code."""
    os.environ[name] = value
