"""A process' way to the parameter servers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import tensorflow as tf

from headrace.config import TimeoutConfig
from headrace.errors import ServerLostError, WaitTimeoutError
from headrace.role import RoleLink
from headrace.tensorflow.cluster import PS, TFCluster
from headrace.tensorflow.internals import connect, leave_xla_out, let_steps_wait_for_their_batch
from headrace.tensorflow.lease import hold_lease
from headrace.tensorflow.ps_scope import ParameterServerScope

__all__ = ["LEASE_KEY", "ParameterServers", "ready_key"]

LEASE_KEY = "ps/lease"
"""Under which parameter server 0 publishes where the lease is granted."""

KEEP_ALIVE_S = 30
"""Seconds after which a server may drop what a client held there that has died.

TensorFlow 2.20 drops little: a client that is killed costs the server 4 to 7 threads and 1 MiB
for good (`tests/faults/tensorflow/restarts.py` measures it): 50 cost some 350 threads.
A client that is frozen for longer has lost its place: its next step fails, and it starts again.
"""

_LOCAL_JOB = "localhost"  # so devices keep their names, and what was made before stays usable


def ready_key(server: int) -> str:
    """Return the key under which a parameter server publishes that it listens."""
    return f"ps/ready/{server}"


class ParameterServers:
    """The servers, seen from one process, which connects when its first scope opens.

    Thread model: one thread, that of the entry function; threads of TensorFlow's that make
    variables of an optimizer take turns in the scope.

    Args:
        cluster: The processes.
        link: Where the servers have published themselves.
        timeouts: Limits on the waits.
    """

    def __init__(self, cluster: TFCluster, link: RoleLink, timeouts: TimeoutConfig) -> None:
        self._cluster = cluster
        self._link = link
        self._timeout_s = timeouts.process_start_timeout_s
        self._clients = sum(map(len, cluster.addresses.values())) - len(cluster.servers)
        self._lease_address: str | None = None
        self._is_connected = False
        self._scope = ParameterServerScope(len(cluster.servers), self._hold_lease)

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Put new variables on the servers in the `with` block."""
        with self._scope.open():
            yield

    def made_but(
        self, shared_names: Collection[str], *, by_optimizers: bool = False
    ) -> list[str]:
        """Return the names of what this process has made on the servers, less those given.

        Args:
            shared_names: Names on the servers.
            by_optimizers: Whether what its optimizers have made counts, or only the rest.
        """
        return self._scope.made_but(shared_names, by_optimizers=by_optimizers)

    @contextmanager
    def _hold_lease(self) -> Iterator[None]:
        if self._lease_address is None:
            for server in range(len(self._cluster.servers)):
                self._wait_for(server, ready_key(server))
            self._lease_address = self._wait_for(0, LEASE_KEY)
        with hold_lease(self._lease_address, timeout_s=self._timeout_s * self._clients):
            if not self._is_connected:
                self._connect()
                self._is_connected = True
                leave_xla_out()
                let_steps_wait_for_their_batch()
                self._scope.adopt_optimizers()
            yield

    def _wait_for(self, server: int, key: str) -> str:
        try:
            return self._link.lookup(key, self._timeout_s)
        except WaitTimeoutError as error:
            raise WaitTimeoutError(
                waited_for=f"parameter server {server} to listen",
                waited_s=self._timeout_s,
                setting="timeouts.process_start_timeout_s",
                hint="Importing TensorFlow may take longer on a busy host: raise the setting.",
            ) from error

    def _connect(self) -> None:
        cluster = self._cluster
        mine = cluster.addresses[cluster.role][cluster.index]
        spec = {PS: cluster.servers, _LOCAL_JOB: [mine]}
        try:
            connect(
                tf.train.ClusterSpec(spec),
                job_name=_LOCAL_JOB,
                task_index=0,
                keep_alive_s=KEEP_ALIVE_S,
            )
        except tf.errors.OpError as error:
            raise ServerLostError(reason=error.message) from error
