"""Memory that a process writes its state into, and the operator reads it from."""

from __future__ import annotations

import contextlib
import mmap
import os

from headrace.errors import ExchangeError
from headrace.exchange.file_ahead import FileAhead
from headrace.exchange.offers import StateOffer

__all__ = ["StateFile", "StateFiles"]

_KEPT = 2  # one is written into a checkpoint while the next one is filled
_KEPT_BESIDE_READERS = 3  # one more may be read meanwhile
_PIECE_BYTES = 4 << 20
_POPULATE_WRITE = 23  # of Linux 5.14 on; Python has no name for it
_WORTH_AHEAD_BYTES = 4 << 20  # the pages of less are made in a few milliseconds
_SLACK_BYTES = 256 << 10  # what is pickled may grow a little


class StateFile:
    """Shared memory without a name, of this user only; it ends with its last user.

    Thread model: one thread at a time.

    Attributes:
        number: Which of the process' state files it is.
        memory: Room for the state, zeros or an earlier state; release what is made from it
            before the file is closed.
        is_read: Whether this process still reads the state; then nothing is written over it.
    """

    def __init__(self, number: int, size_bytes: int, *, is_cold: bool = False) -> None:
        """Make one; its pages are there when this returns, so that filling it faults none in.

        The kernel has no limit for it but the container's memory, and there it kills.

        Args:
            number: See the class.
            size_bytes: Room for the state, at least 1.
            is_cold: Make no pages; `make_pages` does.

        Raises:
            ExchangeError: There is not that much address space, or a limit of the process is
                in the way.
        """
        self.number = number
        self.is_read = False
        self._size_bytes = size_bytes
        self._capacity_bytes = -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self._warm_bytes = 0 if is_cold else self._capacity_bytes
        self._fd = os.memfd_create("headrace-state", os.MFD_CLOEXEC)
        try:
            os.fchmod(self._fd, 0o600)
            os.ftruncate(self._fd, self._capacity_bytes)
            flags = mmap.MAP_SHARED | (0 if is_cold else mmap.MAP_POPULATE)
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
    def capacity_bytes(self) -> int:
        """The largest state that it has room for."""
        return self._capacity_bytes

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

    def make_pages(self) -> bool:
        """Make the next pages of a cold one, some MiB; return False when all are there.

        Releases the GIL while the kernel clears them. Any one thread, beside none that uses the
        file otherwise.

        Raises:
            OSError: There is no room.
        """
        begin = self._warm_bytes
        size = min(_PIECE_BYTES, self._capacity_bytes - begin)
        if size == 0:
            return False
        os.posix_fallocate(self._fd, begin, size)
        try:
            self._map.madvise(_POPULATE_WRITE, begin, size)
        except OSError:  # an older kernel
            pages = slice(begin, begin + size, mmap.PAGESIZE)
            self._map[pages] = bytes(size // mmap.PAGESIZE)
        self._warm_bytes += size
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

    To make the pages of a file takes several times as long as to fill it. So who knows how
    large the state is says so (`expect`), and the first file is made on a thread meanwhile; the
    next one, too, once a file is out that this process reads for longer than its credit takes.
    Otherwise one file is used all the time: a checkpoint begins when the one before is over.
    `take` and `close` end that thread; neither waits for more than a piece of its work.

    Thread model: one thread at a time.
    """

    def __init__(self) -> None:
        self._free: list[StateFile] = []
        self._out: dict[int, StateFile] = {}
        self._read: dict[int, StateFile] = {}  # no longer out
        self._ahead: FileAhead | None = None
        self._has_taken = False
        self._kept = _KEPT
        self._next_number = 0

    def expect(self, size_bytes: int) -> None:
        """Make a file ahead for the first state, of about that size, if it is worth it.

        Again, where it has grown before the first was taken. Blocks for a piece at most. That
        there is no room is no error before somebody takes the file.
        """
        if self._has_taken:
            return
        if self._ahead is not None and self._ahead.capacity_bytes < size_bytes:
            self._end_ahead()
        self._make_ahead(size_bytes + _SLACK_BYTES)

    def take(self, size_bytes: int) -> StateFile:
        """Return a file that is not out, with room for `size_bytes`; at least 1.

        Raises:
            ExchangeError: There is not that much memory.
        """
        self._has_taken = True
        while (file := self._next_free()) is not None:
            if file.fit(size_bytes) and _has_all_pages(file):
                return file
            file.close()
        self._next_number += 1
        return StateFile(self._next_number, size_bytes)

    def lend(self, file: StateFile) -> None:
        """Note that a file from `take` is out now."""
        self._out[file.number] = file
        if file.is_read and not self._free and self._count < _KEPT:
            self._make_ahead(file.capacity_bytes)

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
        self._end_ahead()
        for file in [*self._free, *self._out.values(), *self._read.values()]:
            file.close()
        self._free.clear()
        self._out.clear()
        self._read.clear()

    def _keep_or_close(self, file: StateFile) -> None:
        if self._count < self._kept:
            self._free.append(file)
        else:
            file.close()

    @property
    def _count(self) -> int:
        """How many there are, but for one that was taken and is not out yet."""
        made = len(self._free) + len(self._out) + len(self._read)
        return made + (self._ahead is not None)

    def _next_free(self) -> StateFile | None:
        if self._free:
            return self._free.pop()
        ahead, self._ahead = self._ahead, None
        return None if ahead is None else ahead.end()

    def _end_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.end().close()

    def _make_ahead(self, size_bytes: int) -> None:
        if size_bytes < _WORTH_AHEAD_BYTES or self._ahead is not None:
            return
        try:
            file = StateFile(self._next_number + 1, size_bytes, is_cold=True)
        except ExchangeError:
            return
        try:
            self._ahead = FileAhead(file)
        except RuntimeError:  # no further thread
            file.close()
        else:
            self._next_number += 1


def _has_all_pages(file: StateFile) -> bool:
    """Make those that are not there yet; return False if there is no room."""
    try:
        while file.make_pages():
            pass
    except OSError:
        return False
    return True
