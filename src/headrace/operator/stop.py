"""The stop of a Flink job with a savepoint, from the order to what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyflink.java_gateway import get_gateway

from headrace.errors import ConfigError, UsageError
from headrace.framework.status import JobStatus

__all__ = ["SavepointStop", "has_ended", "savepoint_uri", "unfinished"]


class SavepointStop:
    """One order to stop, which Flink carries out once; it can be waited for again and again.

    Thread model: one thread.

    Attributes:
        target: URI of the directory in which Flink makes the savepoint.
        drains: Whether every operator is ended before the savepoint, as at the end of input.
        j_future: Flink's answer to come.
    """

    def __init__(self, j_client: Any, *, job_name: str, target: str, drains: bool) -> None:
        """Give the order; does not wait."""
        self.target = target
        self.drains = drains
        self._job_name = job_name
        j_format = (
            get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.CANONICAL
        )
        self.j_future = j_client.stopWithSavepoint(drains, target, j_format)

    def is_same(self, target: str, *, drains: bool) -> bool:
        """Return whether another order would be this one again."""
        return (target, drains) == (self.target, self.drains)

    def other_error(self) -> UsageError:
        """Return the error for another order, while this one is carried out."""
        return UsageError(
            f"Job {self._job_name!r} is being stopped with a savepoint in {self.target} "
            f"(drain={self.drains}); call stop with the same to wait for that"
        )

    def savepoint(self) -> str:
        """Return the URI of the savepoint, once `j_future` is done.

        Raises:
            Py4JJavaError: There is none.
        """
        return str(self.j_future.get())


def has_ended(j_future: Any, pause_ms: int) -> bool:
    """Wait `pause_ms` at most; return whether a future of Flink's is done, well or not."""
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    return bool(builder.hasEnded(j_future, pause_ms))


def savepoint_uri(directory: str | Path) -> str:
    """Return where a savepoint goes, as Flink names it: paths of this host become file URIs.

    Raises:
        ConfigError: It is empty.
    """
    text = str(directory)
    if not text:
        msg = "savepoint='' must name a directory: a path, or a URI of one of Flink's systems"
        raise ConfigError(msg)
    return text if "://" in text else Path(text).absolute().as_uri()


def unfinished(status: JobStatus, fed_roles: frozenset[str]) -> list[str]:
    """Return the nodes of these roles whose functions had not returned when they ended."""
    return [
        name
        for name, node in status.nodes.items()
        if name.rpartition("-")[0] in fed_roles and node.state != "finished"
    ]
