"""The certificate by which master and nodes know each other, where Flink's internal TLS is on.

The JVM reads Flink's keystore and truststore and writes them as PEM into the work directory of
each child (ADR 0115). Both ends of the RPC show the certificate and accept only peers whose
certificate the truststore trusts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.framework.jvm_lines import TlsFiles
from headrace.framework.rpc.library import grpc

__all__ = ["Identity", "take_identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a process shows and what it accepts, each in PEM.

    Attributes:
        key: Private key of the certificate.
        chain: The certificate, and those that lead from it to its issuer.
        trusted: Certificates that a peer's must be, or be issued by.
    """

    key: bytes = field(repr=False)
    chain: bytes
    trusted: bytes

    def server_credentials(self) -> Any:
        """Return credentials that refuse a client without a trusted certificate."""
        return grpc.ssl_server_credentials(
            [(self.key, self.chain)],
            root_certificates=self.trusted,
            require_client_auth=True,
        )

    def channel_credentials(self) -> Any:
        """Return credentials that refuse a server without a trusted certificate."""
        return grpc.ssl_channel_credentials(
            root_certificates=self.trusted,
            private_key=self.key,
            certificate_chain=self.chain,
        )


def take_identity(files: TlsFiles | None) -> Identity | None:
    """Read the files of the `start` line; None without TLS.

    The file with the key is removed: the JVM writes a new one for each child that it starts.

    Raises:
        OSError: They cannot be read.
    """
    if files is None:
        return None
    key = Path(files.key)
    identity = Identity(
        key=key.read_bytes(),
        chain=Path(files.chain).read_bytes(),
        trusted=Path(files.trusted).read_bytes(),
    )
    key.unlink()
    return identity
