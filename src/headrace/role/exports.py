"""Makes a model to serve of each completed checkpoint, beside the training."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from headrace.exchange import Feed, StateFile
from headrace.role.export_dir import ExportDirectory
from headrace.role.state_format import decode_state

__all__ = ["Exports", "Servable"]

_LOG = logging.getLogger(__name__)
_OFFERED = 2  # the completion of one may be told behind the barrier of the next


class Servable(Protocol):
    """A form in which one model is served.

    Attributes:
        suffix: How the names of its files end; "" where a version is a directory.
    """

    suffix: str

    def write(self, state: Any, path: Path) -> None:
        """Write the model as it was in `state`, to a path that does not exist. Blocks.

        Args:
            state: What `state_dict` of the model gave; its memory is not to be kept.
            path: File or directory; complete and on the disk when this returns.
        """


@dataclass(frozen=True, slots=True)
class _Captured:
    checkpoint_id: int
    file: StateFile
    memory: memoryview  # keeps the file mapped, also when the queue is closed


class Exports:
    """Takes the states that go into checkpoints, and writes the model of those that complete.

    The newest that is due is written; those before it that were not begun are skipped. What
    fails is logged and counted, and the next one is tried.

    Thread model: `offer`, `complete` and `collect` on the thread that uses the feed, `close` on
    any. The daemon thread "headrace-export" writes; it ends with `close`.

    Args:
        feed: Whose state files they are.
        directory: Where the versions go; opened.
        name: Name of the model among the objects of the state.
        servable: How it is written.
    """

    def __init__(
        self, feed: Feed, directory: ExportDirectory, name: str, servable: Servable
    ) -> None:
        self._feed = feed
        self._directory = directory
        self._name = name
        self._servable = servable
        self._offered: dict[int, _Captured] = {}
        self._changed = threading.Condition()
        self._due: _Captured | None = None
        self._done: list[_Captured] = []
        self._news: dict[str, float] = {}
        self._failed = 0
        self._skipped = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="headrace-export", daemon=True)
        self._thread.start()

    def offer(self, checkpoint_id: int, file: StateFile) -> None:
        """Keep a state until it is known what becomes of its checkpoint.

        Call it before the barrier is acknowledged.
        """
        file.is_read = True
        self._offered[checkpoint_id] = _Captured(checkpoint_id, file, file.memory)
        while len(self._offered) > _OFFERED:
            self._let_go(self._offered.pop(min(self._offered)))

    def complete(self, checkpoint_id: int) -> None:
        """Say that a checkpoint has completed. Does not block, and does not use the feed."""
        older = [each for each in self._offered if each < checkpoint_id]
        captured = self._offered.pop(checkpoint_id, None)
        with self._changed:
            self._done += [self._offered.pop(each) for each in older]
            if captured is None:
                return
            if self._due is not None:
                self._done.append(self._due)
                self._skipped += 1
                self._news["exports_skipped"] = self._skipped
            self._due = captured
            self._changed.notify_all()

    def collect(self) -> Mapping[str, float]:
        """Give back the states that were read; return what is new to report. Quick."""
        if not (self._done or self._news):  # nearly always; what is missed comes next time
            return {}
        with self._changed:
            done, self._done = self._done, []
            news, self._news = self._news, {}
        for each in done:
            self._let_go(each)
        return news

    def close(self, timeout_s: float | None) -> None:
        """End the thread, once it has written what is due. Idempotent.

        Args:
            timeout_s: Longest wait for that, in seconds. None: what is due is dropped, and what
                is being written is left to end with the process.
        """
        with self._changed:
            self._is_closing = True
            if timeout_s is None:
                self._due = None
            self._changed.notify_all()
        if timeout_s is None:
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _LOG.warning(
                "A model is still being written to %s after %.1f s (limit: half of "
                "`timeouts.stop_timeout_s`); the process ends without it",
                self._directory.latest.parent,
                timeout_s,
            )
        if self._failed:
            _LOG.warning(
                "%d models of completed checkpoints could not be written to %s; see above",
                self._failed,
                self._directory.latest.parent,
            )

    def _let_go(self, captured: _Captured) -> None:
        with contextlib.suppress(BufferError):  # the trace of a failure may still refer to it
            captured.memory.release()
        self._feed.let_go(captured.file)

    def _run(self) -> None:
        while (due := self._next()) is not None:
            self._export(due)
            with self._changed:
                self._done.append(due)

    def _next(self) -> _Captured | None:
        with self._changed:
            while self._due is None and not self._is_closing:
                self._changed.wait()
            due, self._due = self._due, None
            return due

    def _export(self, due: _Captured) -> None:
        began = time.monotonic()
        try:
            state = decode_state(due.memory)["objects"][self._name]
            path = self._directory.put(
                f"checkpoint-{due.checkpoint_id}",
                lambda path: self._servable.write(state, path),
            )
        except BaseException as exc:  # noqa: BLE001 - the training goes on, whatever it is
            self._failed += 1
            self._tell("exports_failed", self._failed)
            _LOG.warning(
                "The model of checkpoint %d could not be written to %s. The training goes on, "
                "the former version stays, and the next checkpoint tries again. %s: %s",
                due.checkpoint_id,
                self._directory.latest.parent,
                type(exc).__name__,
                exc,
            )
        else:
            self._tell("exported_checkpoint", due.checkpoint_id)
            _LOG.info("Wrote %s in %.2f s", path, time.monotonic() - began)

    def _tell(self, name: str, value: float) -> None:
        with self._changed:
            self._news[name] = value
