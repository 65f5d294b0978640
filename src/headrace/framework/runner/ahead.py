"""A process that loads its entry ahead of its spec, and waits (ADR 0120)."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from headrace._environ import set_environment_value
from headrace._imports import quick_imports
from headrace.framework.link import ProcessLink
from headrace.framework.payload import load_entry

__all__ = ["FLAG", "encode_go", "load_ahead"]

FLAG = "--ahead"
_GPU_FILES = "/dev/nvidia"
_STDIN = 0


class _Go(msgspec.Struct, frozen=True, kw_only=True):
    """The line that such a process waits for on stdin.

    Attributes:
        environment: Variables that it sets first.
    """

    environment: dict[str, str] = {}


def encode_go(environment: Mapping[str, str]) -> bytes:
    """Return the line, newline included."""
    return msgspec.json.encode(_Go(environment=dict(environment))) + b"\n"


def load_ahead(payload_path: str, link: ProcessLink) -> Any:
    """Return the entry, loaded, when this process is told to go on; its spec is there then.

    Blocks without limit: the node's end ends the wait, and the process. So does an entry that
    cannot be loaded, or that has opened a GPU, since CUDA_VISIBLE_DEVICES would come too late:
    the node then starts another process, which says what is wrong.
    """
    del sys.argv[1:]  # the user's code may read it
    try:
        entry = _load(payload_path)
    except BaseException:  # noqa: BLE001 - threads of the modules would keep the process alive
        _give_up(traceback.format_exc())
    opened = _opened_gpu()
    if opened is not None:
        _give_up(
            f"headrace: the modules of the entry have opened {opened} when they were imported; "
            "a spare process cannot do that before it knows its GPU. Open it in the function."
        )
    link.ready()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        os._exit(0)  # the node is gone, or does not need this process
    _close_stdin()
    for name, value in msgspec.json.decode(line, type=_Go).environment.items():
        set_environment_value(name, value)
    link.begun()
    return entry


def _load(payload_path: str) -> Any:
    with quick_imports():
        entry = load_entry(payload_path)
        preload = getattr(entry, "preload", None)
        if preload is not None:
            preload()
    return entry


def _opened_gpu() -> str | None:
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # that of the listing itself
            target = str(descriptor.readlink())
            if target.startswith(_GPU_FILES):
                return target
    return None


def _close_stdin() -> None:
    """Read nothing from stdin from now on, as in every other algorithm process."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, _STDIN)
    os.close(nothing)


def _give_up(text: str) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    os._exit(1)
