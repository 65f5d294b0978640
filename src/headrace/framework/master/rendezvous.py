"""Values that the processes of one attempt tell each other."""

from __future__ import annotations

import asyncio

from headrace.framework.rpc.protocol import StaleAttemptError

__all__ = ["Rendezvous"]


class Rendezvous:
    """Keys and values of the present attempt; a new attempt begins empty.

    Thread model: belongs to one asyncio loop.
    """

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self._values: dict[str, str] = {}
        self._waiting: dict[str, list[asyncio.Future[str]]] = {}

    def open_attempt(self, attempt: int) -> None:
        """Forget everything of older attempts, and end the lookups of them."""
        if attempt == self.attempt:
            return
        self.attempt = attempt
        self._values.clear()
        waiting, self._waiting = self._waiting, {}
        for future in (future for futures in waiting.values() for future in futures):
            if not future.done():
                future.set_exception(StaleAttemptError(attempt))

    def publish(self, attempt: int, key: str, value: str) -> None:
        """Keep `value` under `key` and wake who waits for it.

        Raises:
            StaleAttemptError: `attempt` is over.
        """
        self._require_present(attempt)
        self._values[key] = value
        for future in self._waiting.pop(key, ()):
            if not future.done():
                future.set_result(value)

    async def lookup(self, attempt: int, key: str, timeout_s: float) -> str | None:
        """Return the value under `key`; None if it does not come within `timeout_s` seconds.

        Raises:
            StaleAttemptError: `attempt` is over, or ends during the wait.
        """
        self._require_present(attempt)
        if key in self._values:
            return self._values[key]
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(future)
        try:
            return await asyncio.wait_for(future, timeout_s)
        except asyncio.TimeoutError:
            return None
        finally:
            waiting = self._waiting.get(key, [])
            if future in waiting:
                waiting.remove(future)
                if not waiting:
                    del self._waiting[key]

    def _require_present(self, attempt: int) -> None:
        if attempt != self.attempt:
            raise StaleAttemptError(self.attempt)
