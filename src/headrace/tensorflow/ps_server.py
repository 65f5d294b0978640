"""A parameter server: TensorFlow's own server, which holds variables and runs their updates."""

from __future__ import annotations

from collections.abc import Mapping

from headrace._imports import quick_imports
from headrace.config import RoleConfig
from headrace.framework.process import ProcessSpec
from headrace.role import RoleContext, RoleEntry, RoleLink
from headrace.tensorflow.cluster import PS, TFCluster
from headrace.tensorflow.serving import start_server, wait_for_the_end

__all__ = ["ServerEntry", "server_role"]

# TensorFlow imports Keras 3, 40 % of its start, unless it is told that another Keras is used.
_WITHOUT_KERAS = {"TF_USE_LEGACY_KERAS": "1"}


class ServerEntry(RoleEntry):
    """Runs a `tf.distribute.Server` until the node ends the process.

    It listens on the port that is kept for it, serves clients of `ctx.parameter_servers` and of
    `tf.distribute.ParameterServerStrategy` alike, and knows none of them beforehand. Server 0
    also grants the lease (`headrace.tensorflow.lease`). Only then it publishes that it is
    ready.
    """

    def __init__(self) -> None:
        super().__init__(_serve)

    def preload(self) -> None:
        """Import TensorFlow, and what the server needs of it."""
        import tensorflow  # noqa: F401

        import headrace.tensorflow.lease
        import headrace.tensorflow.ps_client  # noqa: F401

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:
        """Start to listen. Does not block."""
        with quick_imports():
            import tensorflow as tf

            from headrace.tensorflow.lease import LeaseServer
            from headrace.tensorflow.ps_client import LEASE_KEY, ready_key

        tf.config.set_visible_devices([], "GPU")
        cluster = TFCluster(role=PS, index=spec.index, addresses=spec.addresses)
        self._server = start_server(cluster.spec, role=PS, index=spec.index)
        if spec.index == 0:
            self._lease = LeaseServer(
                spec.host, hold_timeout_s=context.timeouts.process_start_timeout_s
            )
            link.publish(LEASE_KEY, self._lease.address)
        link.publish(ready_key(spec.index), "yes")


def server_role(servers: int, environment: Mapping[str, str] | None = None) -> RoleConfig:
    """Return the role of parameter servers.

    Args:
        servers: How many, at least 1.
        environment: Environment variables of their processes.
    """
    return RoleConfig(
        entry=ServerEntry(),
        parallelism=servers,
        environment={**(environment or {}), **_WITHOUT_KERAS},
        has_port=True,
    )


def _serve(_: RoleContext) -> None:
    wait_for_the_end()
