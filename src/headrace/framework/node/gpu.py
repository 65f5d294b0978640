"""One GPU for one node, among all that Flink has assigned to its TaskManager."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

from headrace.errors import WaitTimeoutError

__all__ = ["GpuLease", "take_gpu"]

_NAME = "\0headrace-gpu-{}"
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class GpuLease:
    """A GPU that no other node of this host has, until `close` or the end of this process.

    The lease is a Unix socket bound to a name in Linux's abstract namespace: the kernel lets
    one process of a host (of a network namespace) have it, and frees it whatever ends that
    process. No file is left. Children do not inherit the socket.

    Attributes:
        index: As Flink and CUDA_VISIBLE_DEVICES name it.
    """

    index: str
    _socket: socket.socket

    def close(self) -> None:
        """Give the GPU back. Safe to repeat."""
        self._socket.close()

    def __enter__(self) -> GpuLease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def take_gpu(
    assigned: Sequence[str],
    limit_s: float,
    *,
    wait: Callable[[float], bool | None],
    clock: Callable[[], float] = time.monotonic,
) -> GpuLease | None:
    """Return the first GPU that is free. Blocks for `limit_s` at most.

    Flink assigns the same GPUs to every operator of a TaskManager, and a TaskManager may have
    neighbours, so the nodes of a host share them out themselves. Waiting is for nodes of a job
    that is ending, or of an attempt before this one.

    Args:
        assigned: Indices of the GPUs, at least one.
        limit_s: Longest wait, in seconds.
        wait: Waits for that many seconds; true ends the search, which returns None then.
        clock: Monotonic seconds.

    Raises:
        WaitTimeoutError: All have been taken for `limit_s`, half of the time that a process
            may take to start.
    """
    deadline = clock() + limit_s
    while True:
        for index in assigned:
            lease = _try(index)
            if lease is not None:
                return lease
        if clock() >= deadline:
            raise WaitTimeoutError(
                waited_for=f"a GPU: all that Flink has assigned to this TaskManager "
                f"({', '.join(assigned)}) are taken by other processes of this host",
                waited_s=limit_s,
                setting="timeouts.process_start_timeout_s",
                hint="Each process needs one of its own: run fewer of them on a host, give it "
                "more GPUs, or use device='cpu'",
            )
        if wait(_LOOK_EVERY_S):
            return None


def _try(index: str) -> GpuLease | None:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        bound.bind(_NAME.format(index))
    except OSError:
        bound.close()
        return None
    return GpuLease(index, bound)
