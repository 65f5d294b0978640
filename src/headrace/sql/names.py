"""Functions and classes that an option names, and files."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headrace.errors import ConfigError

__all__ = ["require_absolute", "require_package", "resolve"]


def resolve(option: str, text: str) -> Any:
    """Import what "package.module:name" names.

    Raises:
        ConfigError: It is no such text, the module cannot be imported here, or lacks the name.
    """
    module_name, colon, name = text.partition(":")
    if not (module_name and colon and name):
        wanted = "a module and what is in it: 'package.module:name'"
        msg = f"'{option}' = '{text}' must name {wanted}"
        raise ConfigError(msg)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        msg = (
            f"'{option}' = '{text}' cannot be imported by {sys.executable}: there is no module "
            f"{exc.name!r}. Name the directory or zip file that holds it in 'python.files', or "
            "an interpreter that has it in 'python.executable'"
        )
        raise ConfigError(msg) from exc
    except Exception as exc:
        msg = f"'{option}' = '{text}': importing it raised {type(exc).__name__}: {exc}"
        raise ConfigError(msg) from exc
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            msg = f"'{option}' = '{text}': {module.__name__} has no {name!r}"
            raise ConfigError(msg)
        found = getattr(found, part)
    return found


def require_absolute(option: str, paths: Sequence[str]) -> None:
    """Raise a `ConfigError` unless each path means the same wherever the planner runs."""
    for path in paths:
        if not Path(path).is_absolute():
            msg = (
                f"'{option}' = '{path}' must be absolute: the planner, which may run in a SQL "
                "gateway, and the workers have other working directories"
            )
            raise ConfigError(msg)


def require_package(framework: str, package: str) -> None:
    """Raise a `ConfigError` unless the package of a framework is installed here."""
    if importlib.util.find_spec(package) is None:
        msg = (
            f"'framework' = '{framework}' needs the package {package}, which {sys.executable} "
            "lacks. Name an interpreter that has it in 'python.executable'"
        )
        raise ConfigError(msg)
