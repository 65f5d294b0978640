"""The thread that calls the model, so that rows come and go meanwhile."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Any

from headrace.framework.stopping import StopRequestedExit

__all__ = ["ModelThread"]

_INTERRUPT_S = 1.0  # a third of the default `timeouts.stop_grace_s`


class ModelThread:
    """Makes calls one after the other beside the thread that owns it.

    The owner calls `start` and `result` equally often; results come in the order of the starts.

    What ends each wait: `result` waits for the call, and ends early where a signal handler
    raises. The end of the `with` block waits for the call that runs and drops those behind it.
    Where an exception ends the block, a call in Python gets `StopRequestedExit` wherever it is,
    so that its `finally` blocks run, and has a second to end; one that does not notice, inside
    a library, is left to end with the process. The thread itself waits for the next call or
    for the end of the block.

    Example:
        with ModelThread() as thread:
            thread.start(partial(model, batch))
            following = next_batch()
            scores = thread.result()
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._is_over = False
        # A daemon: if the owner dies of a second signal while it waits, the process must end.
        self._thread = threading.Thread(target=self._run, name="headrace-model", daemon=True)

    def __enter__(self) -> ModelThread:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._calls.put(None)
        if exc is None:
            self._thread.join()
            return
        self._interrupt()
        self._thread.join(_INTERRUPT_S)

    def start(self, call: Callable[[], Any]) -> None:
        """Have a call made, behind those that were started before. Does not wait."""
        self._calls.put(call)

    def result(self) -> Any:
        """Wait for what the first call without result returned; raise what it raised."""
        returned, cause = self._results.get()
        if cause is not None:
            raise cause
        return returned

    def _interrupt(self) -> None:
        ident = self._thread.ident
        assert ident is not None
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(ident), ctypes.py_object(StopRequestedExit)
        )

    def _run(self) -> None:
        with suppress(StopRequestedExit):  # it may come between two calls
            self._make_calls()

    def _make_calls(self) -> None:
        while (call := self._calls.get()) is not None and not self._is_over:
            try:
                _take_settings_of_torch()
                self._results.put((call(), None))
            except BaseException as exc:  # noqa: BLE001 - the owner raises it
                self._results.put((None, exc))
            del call  # keep no rows while there is nothing to do


def _take_settings_of_torch() -> None:
    """Make `torch.set_num_threads`, which another thread has called, hold for this one.

    A new thread takes the number over when PyTorch first asks for it there, which a matrix
    product alone does not do. Cheap, so that it can be asked before each call: a model may be
    the first to import PyTorch.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.get_num_threads()
