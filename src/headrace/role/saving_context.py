"""What a process can save by itself, for the next attempt and for other roles to see."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from headrace.role.following import follow_saved
from headrace.role.reporting import Reporter
from headrace.role.saved import latest_saved, new_saved, require_directory

__all__ = ["SavingContext"]


class SavingContext:
    """The part of a `RoleContext` that has to do with files in the job's checkpoint directory.

    These are files of the entry function's own, for jobs without input from Flink above all;
    Flink's checkpoints hold what `RoleContext.checkpointed` and `RoleContext.state` name.
    """

    attempt: int
    checkpoint_dir: Path | None
    _node: str
    _clock: Callable[[], float]
    _reporter: Reporter

    def latest_checkpoint(self) -> Path | None:
        """Return what an earlier attempt saved last with `checkpoint_path`, or None.

        Of the latest attempt that saved any, the one of the highest step. All processes of an
        attempt get the same answer, whatever the attempt itself has written meanwhile. None too
        where the job has no checkpoint directory.
        """
        if self.checkpoint_dir is None:
            return None
        return latest_saved(self.checkpoint_dir, self.attempt)

    def checkpoint_path(
        self, step: int, *, keep: int | None = None
    ) -> AbstractContextManager[Path]:
        """Offer a path to save to; it counts once the `with` block has ended well.

        What was saved counts as a whole or not at all. The path does not exist yet: write a
        file to it, or make it a directory. One process per job should save.

        Args:
            step: Number of the checkpoint, at least 0; what the attempt saved under it before
                is replaced.
            keep: How many checkpoints of this job to keep, at least 1: older ones are removed,
                except for what `latest_checkpoint` answers to this attempt. None keeps all.

        Returns:
            A context manager that gives the path; if its block raises, nothing is saved.

        Example:
            with ctx.checkpoint_path(step) as path:
                torch.save(model.state_dict(), path)

        Raises:
            ConfigError: `step` or `keep` is no count.
            UsageError: The job has no checkpoint directory, or nothing was written.
            OSError: It cannot be written there.
        """
        directory = require_directory(self.checkpoint_dir)
        return new_saved(directory, step, self.attempt, node=self._node, keep=keep)

    def follow_checkpoints(
        self, *, timeout_s: float | None = None
    ) -> Iterator[tuple[int, Path]]:
        """Iterate over what any process of the job saves, in this attempt or an earlier one.

        For a role that looks at the model while others train it. The newest comes, at first of
        what is there already, and each path once: those saved while the one before was looked
        at are passed over, so that a slow reader keeps up and never goes back. Who saves with
        `keep`, or a directory again, may remove one that is read: go on at an `OSError`.

        Args:
            timeout_s: Longest wait for the next one, in seconds, after which the iteration
                ends. None waits as long as the job runs: `StopRequestedExit` comes out of here
                when the node stops this process.

        Returns:
            Pairs of step and path.

        Example:
            for step, path in ctx.follow_checkpoints():
                ctx.report(step=step, loss=evaluate(torch.load(path)))

        Raises:
            UsageError: The job has no checkpoint directory.
            HeadraceError: The node of this process has ended.
        """
        return follow_saved(
            require_directory(self.checkpoint_dir),
            timeout_s=timeout_s,
            on_look=self._reporter.tick,
            clock=self._clock,
        )
