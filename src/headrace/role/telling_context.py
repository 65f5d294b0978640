"""What a process tells the other processes of its job, and whoever waits for the job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headrace.errors import UsageError
from headrace.role.link import RoleLink
from headrace.role.reporting import Reporter

__all__ = ["TellingContext"]


class TellingContext:
    """The part of a `RoleContext` that has to do with the link to the node."""

    role: str
    cluster: Mapping[str, tuple[str, ...]]
    _link: RoleLink
    _reporter: Reporter
    _on_report: Callable[[Mapping[str, Any]], object] | None
    _has_wished: bool

    def report(self, **values: Any) -> None:
        """Tell the latest values of named numbers, for Flink's metrics and the progress line.

        Cheap: the latest values are kept and sent at most every 0.2 s and at the end.

        Args:
            values: One number each: a float, a NumPy scalar, or a tensor with one element
                (reading one from a GPU waits for it).

        Raises:
            DataError: A value is not one number.
            UsageError: This is a fork of the process.
            HeadraceError: The node of this process has ended.
        """
        self._reporter.update(values)
        if self._on_report is not None:
            self._on_report(values)

    def publish(self, key: str, value: str) -> None:
        """Make `value` known under `key` to every process of this attempt. Does not wait.

        A later value under the same key replaces an earlier one. In a role without a master
        (`chained_role`) it does nothing.

        Raises:
            UsageError: Key and value are longer than 1 MiB together, as JSON in UTF-8; or this
                is a fork of the process.
            HeadraceError: The node of this process has ended.
        """
        self._link.publish(key, value)

    def lookup(self, key: str, timeout_s: float) -> str:
        """Wait for what a process of this attempt publishes under `key`.

        Args:
            key: What to look for.
            timeout_s: Longest wait, in seconds.

        Returns:
            The value; at once where it is there already.

        Raises:
            WaitTimeoutError: Nobody has published it within `timeout_s`.
            HeadraceError: The role has no master to ask (`chained_role`), the attempt is over,
                or the node of this process has ended.
            UsageError: This is a fork of the process; or, in `headrace.testing.run` with one
                worker, nobody has published it.
        """
        return self._link.lookup(key, timeout_s)

    def stop_job(self, reason: str, *, savepoint: bool = False) -> None:
        """Ask for the end of all roles with success, after the last report. Does not wait.

        All processes, this one included, are then asked to end (`StopRequestedExit` in the
        main thread) and killed after `timeouts.stop_grace_s`: save before you call it.

        With `savepoint`, nobody is ended. Who waits for the job (`JobHandle.wait`) stops it
        with a savepoint, as `JobHandle.stop` does: sources stop, your loop uses the rows that
        are under way and ends as at the end of the input, and what you save behind it is the
        model of the savepoint. So go on with the loop. The first call counts, until the job is
        restarted; further ones do nothing.

        Args:
            reason: For the status and the log.
            savepoint: Whether the job is to be drained into a savepoint.

        Raises:
            UsageError: With `savepoint`, in a role without a master (`chained_role`), of whose
                job nobody could be told; or this is a fork of the process.
            HeadraceError: The node of this process has ended.
        """
        if not savepoint:
            self._reporter.flush()
            self._link.stop_job(reason)
            return
        if self.role not in self.cluster:
            msg = (
                "ctx.stop_job(savepoint=True): each process of this role is one alone, without "
                "a master that could tell whoever waits for the job. Stop it from outside "
                "(`flink stop`), or make it a role of a Cluster"
            )
            raise UsageError(msg)
        if not self._has_wished:
            self._has_wished = True
            self._reporter.flush()
            self._link.stop_job(reason, with_savepoint=True)
