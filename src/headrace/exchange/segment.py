"""Shared memory of one direction: slots, and leases on them.

Who owns what: a segment's mapping belongs to everything that refers to it. Each batch that was
read in place holds a `Lease`; the lease holds the segment. So the memory of a batch outlives
the channel, and is unmapped when the last array, view or tensor over it is gone.

The mapping is writable on purpose, although batches are read-only to Arrow and NumPy: a slot
belongs to the reader until its credit goes back, so a tensor that is changed in place changes
only its own batch instead of ending the process with a segmentation fault.
"""

from __future__ import annotations

import errno
import mmap
import os
import weakref
from collections import deque

import pyarrow as pa

from headrace.errors import ExchangeError, ProtocolError
from headrace.exchange.frames import DirectionOffer

__all__ = ["InputSegment", "Lease", "OutputSegment", "map_oversize"]

_SPARE_SLOTS = 2
_INPUTS: weakref.WeakSet[InputSegment] = weakref.WeakSet()


class Lease:
    """Holds one slot for a batch; it dies when nothing refers to the batch's memory any more.

    It may die on any thread and at any place of the program, so all it does is note the slot.
    """

    __slots__ = ("__weakref__", "_returned", "_segment", "_slot", "is_pinned")

    def __init__(self, segment: InputSegment, slot: int, returned: deque[int]) -> None:
        self._segment = segment
        self._slot = slot
        self._returned = returned
        self.is_pinned = False

    def __del__(self) -> None:
        if not self.is_pinned:
            self._returned.append(self._slot)


class _Mapping:
    """A file in memory; unmapped when the last reference to its buffer is gone."""

    def __init__(self, offer: DirectionOffer) -> None:
        self.slots = offer.slots
        self.slot_bytes = offer.slot_bytes
        total_bytes = offer.slots * offer.slot_bytes
        try:
            fd = os.open(offer.path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as exc:
            raise ExchangeError(_not_opened(f"segment {offer.path}", exc)) from exc
        try:
            found_bytes = os.fstat(fd).st_size
            if found_bytes < total_bytes:
                msg = (
                    f"The segment {offer.path} has {found_bytes} bytes instead of {total_bytes}"
                )
                raise ProtocolError(msg)
            self.memory = mmap.mmap(fd, total_bytes)
        except OSError as exc:
            msg = f"{total_bytes} bytes of {offer.path} cannot be mapped: {exc.strerror}"
            raise ExchangeError(msg) from exc
        finally:
            os.close(fd)

    def _require_inside(self, slot: int, message_bytes: int) -> None:
        if not (0 <= slot < self.slots and 0 < message_bytes <= self.slot_bytes):
            msg = (
                f"A message of {message_bytes} bytes in slot {slot} is outside a segment of "
                f"{self.slots} slots of {self.slot_bytes} bytes"
            )
            raise ProtocolError(msg)


class InputSegment(_Mapping):
    """The direction that the process reads.

    Thread model: one reader; leases may die on any thread.
    """

    def __init__(self, offer: DirectionOffer) -> None:
        super().__init__(offer)
        self._buffer = pa.py_buffer(self.memory)
        self._returned: deque[int] = deque()
        self._lent: dict[int, weakref.ref[Lease] | None] = {}
        _INPUTS.add(self)

    @property
    def lent_slots(self) -> int:
        """Slots that a living batch refers to, as of the last `take_returned`."""
        return len(self._lent)

    def read(self, slot: int, message_bytes: int) -> pa.Buffer:
        """Return the message in `slot`: in place under a lease, or as a copy.

        It is copied when only two slots would be left to the writer, so that a reader who keeps
        every batch neither stops the stream nor loses memory. The slot of a copy is returned at
        once.

        Raises:
            ProtocolError: The slot is out of range or still lent, or the message is longer than
                it.
        """
        self._require_inside(slot, message_bytes)
        if slot in self._lent:
            msg = f"Slot {slot} was written although its credit had not been given back"
            raise ProtocolError(msg)
        if len(self._lent) >= self.slots - _SPARE_SLOTS:
            self._lent[slot] = None
            start = slot * self.slot_bytes
            copy = pa.allocate_buffer(message_bytes)
            memoryview(copy).cast("B")[:] = memoryview(self.memory)[
                start : start + message_bytes
            ]
            self._returned.append(slot)
            return copy
        address = self._buffer.address + slot * self.slot_bytes
        lease = Lease(self, slot, self._returned)
        self._lent[slot] = weakref.ref(lease)
        return pa.foreign_buffer(address, message_bytes, base=lease)

    def take_returned(self) -> list[int]:
        """Take the slots whose batches are gone, to give their credits back. Any order."""
        if not self._returned:
            return []
        slots = []
        while self._returned:
            slot = self._returned.popleft()
            del self._lent[slot]
            slots.append(slot)
        return slots

    def pin_leases(self) -> None:
        """Keep every slot that is lent now for ever: a forked child may hold the batch as well.

        The child shares the memory but cannot say when it is done with it.
        """
        for reference in list(self._lent.values()):  # another thread may be reading
            lease = None if reference is None else reference()
            if lease is not None:
                lease.is_pinned = True


def _pin_all_leases() -> None:
    for segment in _INPUTS:
        segment.pin_leases()


os.register_at_fork(before=_pin_all_leases)


class OutputSegment(_Mapping):
    """The direction that the process writes. One writer."""

    def __init__(self, offer: DirectionOffer) -> None:
        super().__init__(offer)
        self._view = memoryview(self.memory)
        self._free = deque(range(offer.slots))

    @property
    def has_free_slot(self) -> bool:
        """Whether `write` has a slot to write to."""
        return bool(self._free)

    def write(self, message: pa.Buffer) -> int:
        """Copy `message` into a free slot, the reader's from now on, and return the slot."""
        slot = self._free.popleft()
        self._require_inside(slot, message.size)
        start = slot * self.slot_bytes
        self._view[start : start + message.size] = memoryview(message).cast("B")
        return slot

    def give_back(self, slot: int) -> None:
        """Take the credit for `slot`.

        Raises:
            ProtocolError: There is no such slot, or it is free already.
        """
        if not 0 <= slot < self.slots or slot in self._free:
            msg = f"A credit came for slot {slot}, which was not being read"
            raise ProtocolError(msg)
        self._free.append(slot)


def map_oversize(path: str, message_bytes: int) -> pa.Buffer:
    """Map the file of an oversized row and return its message.

    The memory lives as long as anything refers to the buffer.

    Raises:
        ExchangeError: The file cannot be opened or mapped.
        ProtocolError: It is shorter than announced.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < message_bytes:
                msg = f"The file {path} is shorter than the {message_bytes} bytes announced"
                raise ProtocolError(msg)
            memory = mmap.mmap(fd, message_bytes)
        finally:
            os.close(fd)
    except OSError as exc:
        raise ExchangeError(_not_opened(f"file {path} of an oversized row", exc)) from exc
    return pa.py_buffer(memory)


def _not_opened(what: str, exc: OSError) -> str:
    """Say what is wrong with a path below /proc, where the JVM's open files are found."""
    msg = f"The {what} cannot be opened: {exc.strerror}."
    if exc.errno in (errno.EACCES, errno.EPERM, errno.ENOENT):
        msg += (
            " It is an open file of the JVM. Its processes find it in /proc only as the same "
            "user, in the same container, and while the JVM lives and `java` has neither "
            "set-uid nor file capabilities (`getcap`); `hidepid` hides it from other users. "
            "Run Flink and its Python as one user in one container."
        )
    return msg
