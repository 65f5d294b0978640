"""Memory that a process writes its state into, and the operator reads it from."""

from __future__ import annotations

import contextlib
import mmap
import os

from headrace.errors import ExchangeError
from headrace.exchange.offers import StateOffer

__all__ = ["StateFile", "StateFiles"]

_KEPT = 2  # one is written into a checkpoint while the next one is filled
_KEPT_BESIDE_READERS = 3  # one more may be read meanwhile


class StateFile:
    """Shared memory without a name, of this user only; it ends with its last user.

    Thread model: one thread at a time.

    Attributes:
        number: Which of the process' state files it is.
        memory: Room for the state, zeros or an earlier state; release what is made from it
            before the file is closed.
        is_read: Whether this process still reads the state; then nothing is written over it.
    """

    def __init__(self, number: int, size_bytes: int) -> None:
        """Make one; its pages are there when this returns, so that filling it faults none in.

        The kernel has no limit for it but the container's memory, and there it kills.

        Raises:
            ExchangeError: There is not that much address space, or a limit of the process is
                in the way.
        """
        self.number = number
        self.is_read = False
        self._size_bytes = size_bytes
        self._capacity_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._fd = os.memfd_create("headrace-state", os.MFD_CLOEXEC)
        try:
            os.fchmod(self._fd, 0o600)
            os.ftruncate(self._fd, self._capacity_bytes)
            flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
            self._map = mmap.mmap(self._fd, self._capacity_bytes, flags=flags)
        except OSError as exc:
            os.close(self._fd)
            msg = (
                f"No memory for the state of {size_bytes} bytes that goes into Flink's "
                f"checkpoint: {exc}. It is copied there while the process goes on; give the "
                "container more memory, or keep less with ctx.checkpointed and ctx.state"
            )
            raise ExchangeError(msg) from exc

    @property
    def memory(self) -> memoryview:
        """The bytes of the state."""
        return memoryview(self._map)[: self._size_bytes]

    @property
    def offer(self) -> StateOffer:
        """What the operator is told."""
        return StateOffer(self.number, self._size_bytes, f"/proc/{os.getpid()}/fd/{self._fd}")

    def fit(self, size_bytes: int) -> bool:
        """Take another size; return False if there is no room for it."""
        if size_bytes > self._capacity_bytes:
            return False
        self._size_bytes = size_bytes
        return True

    def close(self) -> None:
        """Let go of the memory. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(
                BufferError
            ):  # unmapped when nothing refers to it any more
                self._map.close()


class StateFiles:
    """The state files of a process: a few, used again and again, because their pages are warm.

    A file is *out* from the acknowledgement that offers it until its credit. One that the
    process itself reads is free only when it has let go as well.

    Thread model: one thread at a time.
    """

    def __init__(self) -> None:
        self._free: list[StateFile] = []
        self._out: dict[int, StateFile] = {}
        self._read: dict[int, StateFile] = {}  # no longer out
        self._kept = _KEPT
        self._next_number = 0

    def take(self, size_bytes: int) -> StateFile:
        """Return a file that is not out, with room for `size_bytes`; at least 1.

        Raises:
            ExchangeError: There is not that much memory.
        """
        while self._free:
            file = self._free.pop()
            if file.fit(size_bytes):
                return file
            file.close()
        self._next_number += 1
        return StateFile(self._next_number, size_bytes)

    def lend(self, file: StateFile) -> None:
        """Note that a file from `take` is out now."""
        self._out[file.number] = file

    def is_out(self, file: StateFile) -> bool:
        """Whether the operator has not given the file back."""
        return file.number in self._out

    def give_back(self, number: int) -> bool:
        """Take a credit; return False if no such file is out."""
        file = self._out.pop(number, None)
        if file is None:
            return False
        if file.is_read:
            self._read[number] = file
            self._kept = _KEPT_BESIDE_READERS
        else:
            self._keep_or_close(file)
        return True

    def let_go(self, file: StateFile) -> None:
        """Note that the process reads a file no longer, which it had marked as read."""
        file.is_read = False
        if self._read.pop(file.number, None) is not None:
            self._keep_or_close(file)

    def close(self) -> None:
        """Close all files; what the operator has open stays for it. Idempotent."""
        for file in [*self._free, *self._out.values(), *self._read.values()]:
            file.close()
        self._free.clear()
        self._out.clear()
        self._read.clear()

    def _keep_or_close(self, file: StateFile) -> None:
        if len(self._free) + len(self._out) + len(self._read) < self._kept:
            self._free.append(file)
        else:
            file.close()
