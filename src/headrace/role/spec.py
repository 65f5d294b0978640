"""What an algorithm process is told at its start: the seam to `headrace.framework`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from headrace.config import TimeoutConfig

__all__ = ["RoleSpec"]


class RoleSpec(Protocol):
    """The facts about one process; `headrace.framework.process.ProcessSpec` is one.

    Source: docs/lifecycle.md, section 5.
    """

    @property
    def job_name(self) -> str:
        """Name of the job."""

    @property
    def role(self) -> str:
        """Name of the role, for example "worker"."""

    @property
    def index(self) -> int:
        """Number within the role, from 0."""

    @property
    def parallelism(self) -> int:
        """Processes of this role at run time."""

    @property
    def attempt(self) -> int:
        """Number of the group's start, from 1."""

    @property
    def cluster(self) -> Mapping[str, Sequence[str]]:
        """Role to the hosts of its processes, in the order of their index."""

    @property
    def queue_socket(self) -> str | None:
        """Path of the memory queue's socket; None if the role has neither input nor output."""

    @property
    def work_dir(self) -> str:
        """Directory of this process; its node removes it."""

    @property
    def checkpoint_dir(self) -> str | None:
        """Directory that all attempts of the job share; None if the job has none."""

    @property
    def timeouts(self) -> TimeoutConfig:
        """Limits on every wait."""

    @property
    def options(self) -> Mapping[str, Any]:
        """What the framework layer has set."""
