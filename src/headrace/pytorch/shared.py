"""All-reduce through memory that the workers of one host share.

gloo sends a vector through sockets, which costs more processor time than the sum itself.
Workers on one host write their vectors side by side into shared memory instead; each adds up
one part for all, and takes the whole result out. gloo carries only the two signals between
these stages, so a dead peer or a silent one is noticed as in any collective.

Memory: one slot for each worker, which *is* its vector, and one for the sum. It is a memfd: it
has no name, needs no room in ``/dev/shm``, and is gone with the last process. Peers open it
through ``/proc``; where that does not work (several hosts, containers of their own), the
vector goes through gloo.
"""

from __future__ import annotations

import mmap
import os
import secrets
from pathlib import Path
from typing import Protocol

import torch

__all__ = ["HostAdder", "Peers"]

_NAME = "headrace-sum"
_NONCE_BYTES = 32
_PAGE_BYTES = 4096


class Peers(Protocol):
    """What is needed of the group; `GroupAdder` is one. Every method is collective."""

    @property
    def rank(self) -> int:
        """This worker's number."""

    @property
    def world_size(self) -> int:
        """Number of workers."""

    def add(self, vector: torch.Tensor) -> None:
        """Replace `vector` by the sum over all workers."""

    def spread(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite `tensors` by those of rank 0."""


class HostAdder:
    """Adds the vector that `zeros` made through shared memory, any other one through `peers`.

    Other workers read and write this worker's memory only while all of them are inside `add`.
    Thread model: one thread.
    """

    def __init__(self, peers: Peers) -> None:
        self._peers = peers
        self._vector: torch.Tensor | None = None
        self._sum = torch.empty(0)
        self._parts: list[torch.Tensor] = []
        self._part_sum = torch.empty(0)
        self._signal = torch.zeros(1)

    @property
    def world_size(self) -> int:
        """Number of workers."""
        return self._peers.world_size

    @property
    def is_shared(self) -> bool:
        """True if `zeros` has made a vector in shared memory."""
        return self._vector is not None

    def zeros(self, elements: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
        """Return a vector of zeros for `add`, in shared memory if all workers can share it.

        Collective: every worker calls it once, with the same arguments.
        """
        if device.type != "cpu":
            return torch.zeros(elements, dtype=dtype, device=device)
        slot_bytes = -(-elements * dtype.itemsize // _PAGE_BYTES) * _PAGE_BYTES
        memory = self._open(_PAGE_BYTES + (self._peers.world_size + 1) * slot_bytes)
        if memory is None:
            return torch.zeros(elements, dtype=dtype)
        slots = [
            torch.frombuffer(
                memory, dtype=dtype, count=elements, offset=_PAGE_BYTES + number * slot_bytes
            )
            for number in range(self._peers.world_size + 1)
        ]
        *vectors, self._sum = slots
        rank, world_size = self._peers.rank, self._peers.world_size
        self._parts = [_part(vector, rank, world_size) for vector in vectors]
        self._part_sum = _part(self._sum, rank, world_size)
        self._vector = vectors[rank]
        return self._vector

    def add(self, vector: torch.Tensor) -> None:
        """Replace `vector` by the sum over all workers. Blocks until all have called it.

        Raises:
            CollectiveError: A peer ended, or did not come within the limit.
        """
        if vector is not self._vector:
            self._peers.add(vector)
            return
        self._wait_for_all()  # every slot is complete
        torch.add(self._parts[0], self._parts[1], out=self._part_sum)
        for part in self._parts[2:]:
            self._part_sum.add_(part)
        self._wait_for_all()  # the sum is complete, and nobody reads a slot any more
        vector.copy_(self._sum)

    def _wait_for_all(self) -> None:
        self._peers.add(self._signal)

    def _open(self, size_bytes: int) -> mmap.mmap | None:
        """Return memory that all workers have mapped, or None if not all could."""
        own: int | None = None
        card = torch.zeros(_NONCE_BYTES + 2 * 8, dtype=torch.uint8)
        if self._peers.rank == 0:
            own, card = _create(size_bytes)
        try:
            self._peers.spread([card])
            memory = _map(card, size_bytes)
            could = torch.tensor([float(memory is not None)])
            self._peers.add(could)
        finally:
            if own is not None:
                os.close(own)
        return memory if could.item() == self._peers.world_size else None


def _part(vector: torch.Tensor, number: int, of: int) -> torch.Tensor:
    """Return one of `of` parts that make up the vector; it may be empty."""
    begin, end = (len(vector) * each // of for each in (number, number + 1))
    return vector[begin:end]


def _create(size_bytes: int) -> tuple[int | None, torch.Tensor]:
    """Make the memory; return its descriptor and what the others need to find it."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    descriptor: int | None = None
    try:
        descriptor = os.memfd_create(_NAME, os.MFD_CLOEXEC)
        os.posix_fallocate(descriptor, 0, size_bytes)  # an error now, not a signal later
        os.pwrite(descriptor, nonce, 0)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        descriptor = None
    place = b"".join(n.to_bytes(8, "little") for n in (os.getpid(), descriptor or 0))
    return descriptor, torch.frombuffer(bytearray(nonce + place), dtype=torch.uint8)


def _map(card: torch.Tensor, size_bytes: int) -> mmap.mmap | None:
    content = bytes(card.tolist())
    pid, number = (
        int.from_bytes(content[start : start + 8], "little")
        for start in (_NONCE_BYTES, _NONCE_BYTES + 8)
    )
    path = Path(f"/proc/{pid}/fd/{number}")
    try:
        if not str(path.readlink()).startswith(f"/memfd:{_NAME}"):
            return None
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.pread(descriptor, _NONCE_BYTES, 0) != content[:_NONCE_BYTES]:
            return None  # another process in another container has the same number
        return mmap.mmap(descriptor, size_bytes)
    except OSError:
        return None
    finally:
        os.close(descriptor)
