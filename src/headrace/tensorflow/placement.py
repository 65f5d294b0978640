"""On which parameter server a variable lives. Pure: every worker decides the same."""

from __future__ import annotations

__all__ = ["Placement"]


class Placement:
    """Gives each new variable to the server that holds the fewest bytes.

    Every worker makes the same variables in the same order, so all agree without talking.

    Args:
        servers: Number of parameter servers, at least 1.
    """

    def __init__(self, servers: int) -> None:
        self._held_bytes = [0] * servers

    def place(self, size_bytes: int) -> int:
        """Return the index of the server for the next variable."""
        held = self._held_bytes
        server = held.index(min(held))
        self.put(server, size_bytes)
        return server

    def put(self, server: int, size_bytes: int) -> None:
        """Note a variable that had to go to `server`, beside another one."""
        self._held_bytes[server] += size_bytes
