"""What the master takes from whoever reaches its port; docs/security.md shows the list."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ServerLimits"]

_KIB = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """Limits of the RPC server; a node that works never meets one.

    Attributes:
        message_bytes: Longest message, in either direction.
        metadata_bytes: Most metadata of one call, keys and values.
        connections: Connections at one moment; a node has one. Those over it are closed.
        calls_of_a_connection: Calls at one moment on one connection; a node has two streams,
            and one call for each thread of its process that looks a value up. More wait.
        handshake_s: A connection that has not greeted after so long is closed.
        idle_s: A connection without a call for so long is closed; a node that has registered
            always has one, a stranger's calls end at once.
        ping_every_s: Pings that come faster and without data are counted; a node pings every
            `timeouts.heartbeat_timeout_s`.
        pings_too_many: With so many of them the connection is closed.
    """

    message_bytes: int = 4 * _KIB * _KIB
    metadata_bytes: int = 8 * _KIB
    connections: int = 8192
    calls_of_a_connection: int = 128
    handshake_s: float = 10.0
    idle_s: float = 30.0
    ping_every_s: float = 0.1
    pings_too_many: int = 100

    def options(self) -> tuple[tuple[str, int], ...]:
        """Return them as the options of a gRPC server.

        Source: include/grpc/impl/channel_arg_names.h of gRPC 1.65.
        """
        return (
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_send_message_length", self.message_bytes),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.calls_of_a_connection),
            ("grpc.server_handshake_timeout_ms", int(self.handshake_s * 1000)),
            ("grpc.max_connection_idle_ms", int(self.idle_s * 1000)),
            # Nodes notice a master that hangs by pings below the level of calls, also between
            # calls.
            ("grpc.keepalive_permit_without_calls", 1),
            (
                "grpc.http2.min_recv_ping_interval_without_data_ms",
                int(self.ping_every_s * 1000),
            ),
            ("grpc.http2.max_ping_strikes", self.pings_too_many),
        )
