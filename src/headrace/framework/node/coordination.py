"""What the link of an algorithm process reaches: the group by way of the master, or nobody."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import HeadraceError
from headrace.framework.link_lines import ReportLine
from headrace.framework.messages import Lookup, Publish, StopJob
from headrace.framework.node.attendance import Attendance
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.protocol import StaleAttemptError

__all__ = ["LoneCoordination", "MasterCoordination"]

_CALL_S = 5.0


class MasterCoordination:
    """Speaks with the master for the process of one attempt. Belongs to the node's loop."""

    def __init__(
        self,
        attendance: Attendance,
        *,
        node: str,
        instance: str,
        attempt: int,
        on_report: Callable[[ReportLine], None],
    ) -> None:
        self._attendance = attendance
        self._node = node
        self._instance = instance
        self._attempt = attempt
        self._on_report = on_report

    def report(self, line: ReportLine) -> None:
        """Keep the latest values; the heartbeat takes them along."""
        self._on_report(line)

    def publish(self, key: str, value: str) -> None:
        """Make a value known to the group."""
        self._attendance.publish(
            Publish(
                node=self._node,
                instance=self._instance,
                attempt=self._attempt,
                key=key,
                value=value,
            )
        )

    async def lookup(self, key: str, timeout_s: float) -> str | None:
        """Wait for a value of this attempt.

        Raises:
            HeadraceError: The attempt is over.
        """
        request = Lookup(
            node=self._node,
            instance=self._instance,
            attempt=self._attempt,
            key=key,
            timeout_s=timeout_s,
        )
        try:
            return await self._attendance.lookup(request)
        except StaleAttemptError as exc:
            msg = f"attempt {self._attempt} of the group is over: {exc}"
            raise HeadraceError(msg) from exc

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """Ask the master to end the job, or to have it drained into a savepoint."""
        request = StopJob(
            node=self._node,
            instance=self._instance,
            attempt=self._attempt,
            reason=reason,
            with_savepoint=with_savepoint,
        )
        if with_savepoint:
            self._attendance.wish(request)
            return

        async def deliver(client: MasterClient) -> None:
            await client.stop_job(request, timeout_s=_CALL_S)

        self._attendance.deliver(deliver)


class LoneCoordination:
    """For a node without a master: there is no group to reach."""

    def __init__(self, on_report: Callable[[ReportLine], None]) -> None:
        self._on_report = on_report

    def report(self, line: ReportLine) -> None:
        """Keep the latest values."""
        self._on_report(line)

    def publish(self, key: str, value: str) -> None:
        """Do nothing: nobody can ask for it."""

    async def lookup(self, key: str, timeout_s: float) -> str | None:  # noqa: ARG002
        """Refuse.

        Raises:
            HeadraceError: Always.
        """
        msg = f"there is no master that could know {key!r}; processes here are independent"
        raise HeadraceError(msg)

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """Do nothing: the process may simply return."""
