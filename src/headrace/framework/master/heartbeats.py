"""Who has been silent for too long. Pure: instants are handed in."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Heartbeats"]


class Heartbeats:
    """The last sign of life of every watched node.

    A beat costs the same however many nodes there are: the longest silent node is always in
    front. Not thread-safe.

    Args:
        limit_s: A node that is silent for longer is lost.
    """

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._last: OrderedDict[str, float] = OrderedDict()

    def beat(self, node: str, now: float) -> None:
        """Note a sign of life at the instant `now`, and begin to watch the node if need be."""
        self._last[node] = now
        self._last.move_to_end(node)

    def forget(self, node: str) -> None:
        """Watch the node no longer."""
        self._last.pop(node, None)

    def take_lost(self, now: float) -> list[tuple[str, float]]:
        """Return the lost nodes with the seconds of their silence, and forget them."""
        lost = []
        while self._last:
            node, last = next(iter(self._last.items()))
            if now - last <= self.limit_s:
                break
            lost.append((node, now - last))
            del self._last[node]
        return lost

    def next_check(self, now: float) -> float:
        """Return after how many seconds the next node can be lost."""
        if not self._last:
            return self.limit_s
        return max(0.0, next(iter(self._last.values())) + self.limit_s - now)

    def forgive(self, seconds: float) -> None:
        """Move every last sign of life by `seconds`: the watcher itself did not run so long."""
        for node, last in self._last.items():
            self._last[node] = last + seconds
