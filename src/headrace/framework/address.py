"""How a host and a port are written as one text."""

from __future__ import annotations

__all__ = ["join_address"]


def join_address(host: str, port: int) -> str:
    """Return "host:port"; an IPv6 address is put in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
