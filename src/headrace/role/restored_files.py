"""The files in which a process finds what a restored checkpoint holds for it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from typing import Any

from headrace.errors import ExchangeError, PlanError
from headrace.framework.process import ProcessSpec, StateRef
from headrace.role.fullness import says_full
from headrace.role.state_format import decode_state

__all__ = ["decode_own", "read_states"]


def read_states(spec: ProcessSpec) -> list[tuple[StateRef, memoryview, Mapping[str, Any]]]:
    """Return the states that the checkpoint holds for this process, with what is in them.

    What is in them lies in the memory beside it.

    Raises:
        PlanError: One cannot be read.
        ExchangeError: One cannot be opened.
    """
    found: list[tuple[StateRef, memoryview, Mapping[str, Any]]] = []
    for ref in spec.states:
        if ref.path is not None:
            try:
                memory = _map(ref)
            except OSError as exc:
                node = f"{spec.role}-{ref.index}"
                msg = f"The state of {node} in the restored checkpoint cannot be opened: {exc}"
                raise ExchangeError(msg) from exc
            found.append((ref, memory, decode_own(memory, spec.node)))
    return found


def decode_own(memory: memoryview, node: str) -> dict[str, Any]:
    """Return what is in a state; `node` is whose it is.

    Raises:
        PlanError: It cannot be read.
        Exception: What reading it raised, if that says that memory or a disk is full.
    """
    try:
        return dict(decode_state(memory))
    except Exception as exc:
        if says_full(exc):
            raise
        msg = (
            f"The state of {node} in the restored checkpoint cannot be read: "
            f"{type(exc).__name__}: {exc}. The versions of Python and of the modules that it "
            "uses must fit those of the program that wrote it; a class that has another name "
            "or place now must be found under its old one as well"
        )
        raise PlanError(msg) from exc


def _map(ref: StateRef) -> memoryview:
    """Map a state privately: what is restored from it may be changed, the file is not."""
    assert ref.path is not None
    fd = os.open(ref.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        prot = mmap.PROT_READ | mmap.PROT_WRITE
        return memoryview(mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=prot))
    finally:
        os.close(fd)
