"""The process group: how the workers of one attempt find each other, and how they part.

Rank 0 listens on a port of its host that the system chose, opens the key-value store on it, and
only then publishes the address through the master; the others look it up. Keys carry the
attempt, so a worker of an older attempt finds nothing here. Rank 0 owns the store's server
thread; it ends with the store object. The group is destroyed when the entry function returns.
After an exception it is *not*: destroying closes the connections, and the peers' errors would
race with the cause; the end of the process closes them after the cause has been reported. A
process that is killed reports nothing, so its peers let the cause go first.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Protocol

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore, PrefixStore, Store, TCPStore

from headrace._environ import environment_value, set_environment_default
from headrace.errors import CollectiveError, WaitTimeoutError
from headrace.role import let_the_cause_go_first, open_listener

__all__ = [
    "GroupAdder",
    "GroupSpec",
    "Rendezvous",
    "close_group",
    "is_peer_lost",
    "open_group",
]

_LOST_TEXTS = (
    "Connection closed by peer",  # gloo
    "Connection reset by peer",
    "Broken pipe",
    "Connection was likely closed",  # the store
    "remote process exit",  # nccl: ncclRemoteError
)
_NEARLY = 0.98  # the library measures its limit with a clock of its own
_SIOCGIFADDR = 0x8915  # Linux: IPv4 address of an interface


class Rendezvous(Protocol):
    """Where rank 0 leaves its address and the others find it."""

    def publish(self, key: str, value: str) -> None:
        """Make `value` known under `key` to all processes of this attempt."""

    def lookup(self, key: str, timeout_s: float) -> str:
        """Return the value of `key`; waits until it is published.

        Raises:
            WaitTimeoutError: It was not published within `timeout_s`.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSpec:
    """One worker's place in its group.

    Attributes:
        role: Name of the role; the group is the role's processes.
        rank: 0 to `world_size` - 1.
        world_size: Workers in the group.
        attempt: Number of the ML group's start; fences older ones.
        host: Address of this worker's host as the others reach it.
        backend: "gloo" or "nccl".
        rendezvous_timeout_s: From here until all workers have met, in seconds.
        collective_timeout_s: Longest wait of one collective operation, in seconds.
    """

    role: str
    rank: int
    world_size: int
    attempt: int
    host: str
    backend: str = "gloo"
    rendezvous_timeout_s: float = 120.0
    collective_timeout_s: float = 600.0


def open_group(spec: GroupSpec, rendezvous: Rendezvous) -> None:
    """Make the default process group of `torch.distributed`.

    Blocks until all workers have met, at most `rendezvous_timeout_s`. A group of one makes no
    connection. A group that exists already is left alone.

    Raises:
        WaitTimeoutError: Not all workers came in time.
    """
    if dist.is_initialized():
        return
    store: Store = HashStore()
    if spec.world_size > 1:
        _choose_interface(spec.host)
        store = _open_store(spec, rendezvous)
        _meet(spec, store, "here")
    with _telling("start of the process group", spec.collective_timeout_s):
        dist.init_process_group(
            spec.backend,
            store=PrefixStore(f"headrace/{spec.role}/{spec.attempt}", store),
            rank=spec.rank,
            world_size=spec.world_size,
            timeout=timedelta(seconds=spec.collective_timeout_s),
        )
    if spec.world_size > 1:
        # Rank 0 serves the store: if it ended while others still connect, they would fail.
        _meet(spec, store, "in")


def close_group() -> None:
    """Destroy the default process group, if there is one. Waits for no peer."""
    if dist.is_initialized():
        dist.destroy_process_group()


class GroupAdder:
    """The all-reduce of lockstep training, on a group of its own.

    A group of its own keeps the collectives of an entry function apart from those of the steps.
    Making it is a collective operation: every worker of the default group must.

    Raises:
        CollectiveError: A peer ended, or did not come within the limit.
    """

    def __init__(self, device: torch.device, *, collective_timeout_s: float) -> None:
        self._device = device
        self._limit_s = collective_timeout_s
        with _telling("start of the group of ctx.data_parallel", collective_timeout_s):
            self._group = dist.new_group(timeout=timedelta(seconds=collective_timeout_s))
        self._calls = 0

    @property
    def rank(self) -> int:
        """This worker's number."""
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        """Number of workers."""
        return dist.get_world_size()

    def add(self, vector: torch.Tensor) -> None:
        """Replace `vector` by the sum over all workers. Blocks until all have called it."""
        self._calls += 1
        with _telling(f"all-reduce {self._calls}", self._limit_s):
            dist.all_reduce(vector, group=self._group)

    def spread(self, tensors: list[torch.Tensor]) -> None:
        """Overwrite `tensors` by those of rank 0. Every worker calls it, same shapes."""
        with _telling("broadcast of the model of rank 0", self._limit_s):
            for tensor in tensors:
                dist.broadcast(tensor, src=0, group=self._group)

    def is_same_everywhere(self, number: int) -> bool:
        """Say whether every worker gave the same number. Every worker calls it."""
        bounds = torch.tensor([number, -number], dtype=torch.int64, device=self._device)
        with _telling("comparison of the models", self._limit_s):
            dist.all_reduce(bounds, op=dist.ReduceOp.MAX, group=self._group)
        most, least = bounds.tolist()
        return bool(most == -least)


@contextmanager
def _telling(operation: str, limit_s: float) -> Iterator[None]:
    """Turn what the library raises into a `CollectiveError`, if it is about the peers."""
    begin = monotonic()
    try:
        yield
    except RuntimeError as error:
        waited_s = monotonic() - begin
        is_early = waited_s < limit_s * _NEARLY
        is_lost = is_early and is_peer_lost(error)  # at the limit, peers close as they give up
        if is_early and not is_lost:
            raise  # of this worker alone, such as a lack of memory
        if is_lost:
            let_the_cause_go_first()
        raise CollectiveError(
            operation=operation,
            waited_s=waited_s,
            limit_s=limit_s,
            reason=str(error).partition("\n")[0],
            is_consequence=is_lost,
        ) from error


def is_peer_lost(error: RuntimeError) -> bool:
    """Say whether a collective failed because a process has ended.

    A peer, or rank 0 with the store. Not for a time-out: that is a cause of its own. The
    library says it in its text only; tests/unit/pytorch/test_peer_loss.py provokes what the
    pinned version says.
    """
    text = str(error)
    return any(each in text for each in _LOST_TEXTS)


def _open_store(spec: GroupSpec, rendezvous: Rendezvous) -> Store:
    key = f"pytorch/{spec.role}/{spec.attempt}/store"
    limit = timedelta(seconds=spec.rendezvous_timeout_s)
    if spec.rank == 0:
        listener = open_listener(spec.host, peers=spec.world_size)
        port = int(listener.getsockname()[1])
        store = TCPStore(
            spec.host,
            port,
            is_master=True,
            wait_for_workers=False,
            timeout=limit,
            master_listen_fd=listener.detach(),  # the store closes it
        )
        rendezvous.publish(key, f"{spec.host}:{port}")
        return store
    try:
        address = rendezvous.lookup(key, spec.rendezvous_timeout_s)
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            waited_for=f"{spec.role}-0 to tell where the process group meets",
            waited_s=spec.rendezvous_timeout_s,
            setting="timeouts.gather_timeout_s",
        ) from error
    host, _, port_text = address.rpartition(":")
    return TCPStore(host, int(port_text), is_master=False, timeout=limit)


def _meet(spec: GroupSpec, store: Store, stage: str) -> None:
    """Wait until every worker is at `stage`."""
    store.set(f"headrace/{stage}/{spec.rank}", "1")
    begin = monotonic()
    try:
        store.wait(
            [f"headrace/{stage}/{rank}" for rank in range(spec.world_size)],
            timedelta(seconds=spec.rendezvous_timeout_s),
        )
    except RuntimeError as error:
        raise WaitTimeoutError(
            waited_for=f"the {spec.world_size} {spec.role} processes to meet",
            waited_s=monotonic() - begin,
            setting="timeouts.gather_timeout_s",
            hint="Has one of them ended?",
        ) from error


def _choose_interface(host: str) -> None:
    """Tell gloo and nccl which interface has the address that the others know."""
    if environment_value("GLOO_SOCKET_IFNAME") is not None:
        return
    try:
        name = _interface_of(socket.gethostbyname(host))
    except OSError:  # a name that only the others can resolve, or IPv6: gloo finds its own way
        return
    if name is not None:
        set_environment_default("GLOO_SOCKET_IFNAME", name)
        if name != "lo":
            set_environment_default("NCCL_SOCKET_IFNAME", name)


def _interface_of(address: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:
                continue  # an interface without an IPv4 address
            if socket.inet_ntoa(reply[20:24]) == address or (
                name == "lo" and address.startswith("127.")
            ):
                return name
    return None
