"""The TensorBoard process: `python -m headrace.framework.runner.board FLAGS`.

TensorBoard's own main function with its own flags, after two preparations: it is told that
there is no TensorFlow (see `TensorBoardRunner`), and it gets what it wants of `pkg_resources`,
which it imports and setuptools no longer has since 82.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from types import ModuleType
from typing import Any

from headrace.framework.failure import Failure
from headrace.framework.link import ProcessLink

__all__ = ["main"]

_NO_TENSORFLOW = "tensorboard.compat.notf"
"""TensorBoard uses its stand-in if this module can be imported.

Source: tensorboard/compat/__init__.py of TensorBoard 2.20.
"""


def main() -> None:
    """Serve until SIGTERM, which TensorBoard turns into an exit with code 0."""
    sys.modules[_NO_TENSORFLOW] = ModuleType(_NO_TENSORFLOW)
    if importlib.util.find_spec("pkg_resources") is None:
        sys.modules["pkg_resources"] = _resources()
    try:
        from tensorboard.main import run_main
    except ImportError as exc:
        _tell_missing(exc)
        sys.exit(1)
    sys.argv[0] = "tensorboard"
    run_main()


def _resources() -> ModuleType:
    """Return the two functions of `pkg_resources` that TensorBoard calls."""
    module: Any = ModuleType("pkg_resources")
    module.iter_entry_points = lambda group: map(
        _EntryPoint, importlib.metadata.entry_points(group=group)
    )
    module.parse_version = _parse_version
    result: ModuleType = module
    return result


class _EntryPoint:
    """An entry point as `pkg_resources` has it: `resolve` instead of `load`."""

    def __init__(self, found: importlib.metadata.EntryPoint) -> None:
        self.resolve = found.load


def _parse_version(text: str) -> Any:
    from packaging.version import Version  # TensorBoard requires it

    return Version(text)


def _tell_missing(error: ImportError) -> None:
    link = ProcessLink.from_environment()
    link.failed(
        Failure(
            kind="environment",
            message=f"TensorBoard cannot be started: {error}. Install it where the nodes run "
            "(`pip install tensorboard`; it comes with TensorFlow), or plan no TensorBoard.",
            exit_code=1,
            is_restartable=False,
        )
    )
    link.close()


if __name__ == "__main__":
    main()
