"""What a process keeps in Flink's checkpoints, as its entry function says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import pyarrow as pa

from headrace.config import TimeoutConfig
from headrace.errors import PlanError, UsageError
from headrace.exchange import Feed, StateFile
from headrace.framework.stopping import require_no_stop
from headrace.role.kept_state import KeptState
from headrace.role.link import RoleLink
from headrace.role.reader import BatchReader
from headrace.role.spooled import InputPlace
from headrace.role.spreading import spread_bytes
from headrace.role.star import StarSpec, open_star

__all__ = ["KeepingContext"]


class KeepingContext:
    """The part of a `RoleContext` that has to do with Flink's checkpoints."""

    role: str
    index: int
    parallelism: int
    attempt: int
    cluster: Mapping[str, tuple[str, ...]]
    timeouts: TimeoutConfig
    _link: RoleLink
    _feed: Feed | None
    _kept: KeptState
    _reader: BatchReader | None
    _expects_capture: bool

    @property
    def input_schema(self) -> pa.Schema | None:
        """Columns that come in; None if the role has no input."""
        return None if self._feed is None else self._feed.input_schema

    @property
    def began_behind_rows(self) -> bool:
        """Whether this process had been given rows before the checkpoint that it goes on from.

        A restored one that had not, begins as at the first start.
        """
        return self._kept.began_behind_rows

    @property
    def state(self) -> dict[str, Any]:
        """Values of your own that Flink's checkpoints hold; empty at the first start.

        A restored process finds here what was here when the rows before the checkpoint had been
        handled: numbers, arrays, tensors, whatever pickles. The random number generators that
        `checkpointed` keeps are kept beside it; where that is not called, they are restored
        when the input is first read.

        Example:
            ctx.state["rows"] = ctx.state.get("rows", 0) + len(batch["x"])

        Raises:
            UsageError: The role has no input, so there are no rows to be in step with.
            PlanError: The restored checkpoint is one of another number of processes, and
                `merge_state` was not called.
        """
        self._require_input("ctx.state")
        self._kept.require_merged()
        self._kept.is_asked_for = True
        return self._kept.values

    def merge_state(self, merge: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        """Say what becomes of `state` in a job that is restored with other processes.

        Flink then splits what the former processes had among those that there are now: each
        `state` goes to one of them. Call it before `state` is used and the input is read; it
        does nothing where the number of processes is the same.

        Args:
            merge: Called at once, with the `state` of each former process that came here, in
                the order of their index: one, several, or none in a process that is new. That
                of a process which has had no row, or has never set anything, is empty.
                Returns the `state` to go on with, a mapping.

        Example:
            def add(former):
                return {"rows": sum(each.get("rows", 0) for each in former)}

            ctx.merge_state(add)

        Raises:
            UsageError: The role has no input, the input is being read already, or `merge` does
                not return a mapping. What `merge` raises comes as it is.
        """
        self._require_input("ctx.merge_state")
        if self._reader is not None:
            msg = "ctx.merge_state must be called before the input is read"
            raise UsageError(msg)
        self._kept.merge(merge)

    def checkpointed(self, **objects: Any) -> Any:
        """Keep objects in Flink's checkpoints, in step with the rows of the input.

        Each has `state_dict` and `load_state_dict`, as models, optimizers and schedulers have.
        What they are when the rows before a checkpoint have been handled goes into it, beside
        `state`; so do the random number generators of Python, NumPy (the global one) and torch,
        as with `state` alone.
        In a job that Flink has restored, this restores them all, in place: call it when the
        objects are as at the first start, before the loop over the input.

        One copy in memory is made while the loop waits; the rest happens beside it. What
        workers have given to `data_parallel` is kept once, by worker 0. Gradients are kept
        behind PyTorch's `data_parallel` only: else step before you ask for the next batch.

        In a restored job, and beside parameter servers, it may be collective: every process of
        the role calls it.

        Args:
            objects: By a name of your own, the same in every run of the job.

        Returns:
            The objects themselves: one as it is, several as a tuple in their order.

        Example:
            model, optimizer = ctx.checkpointed(model=model, optimizer=optimizer)

        Raises:
            UsageError: It was called before, the input is being read already, the role has no
                input.
            ConfigError: An object lacks one of the methods.
            PlanError: The restored checkpoint holds other objects, or an object does not take
                its state; the text lists what is missing, unexpected or of another shape. Or it
                is of another number of processes, and not all held the objects alike.
            WaitTimeoutError: In a restored job, not all came within
                `timeouts.gather_timeout_s`.
            CollectiveError: A peer ended meanwhile.

        Source: docs/adr/0110, 0114, 0117, 0119.
        """
        self._require_input("ctx.checkpointed")
        if self._reader is not None:
            msg = "ctx.checkpointed must be called before the input is read"
            raise UsageError(msg)
        self._kept.name(objects, self._spread, self._stateful)
        if self._expects_capture and self._feed is not None and self.index == 0:
            self._kept.expect_capture(self._feed)  # others may keep less: see data_parallel
        given = tuple(objects.values())
        return given[0] if len(given) == 1 else given

    def _stateful(self, objects: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what has `state_dict` and `load_state_dict` for each; a framework's own."""
        return objects

    def _look_ahead(self) -> None:
        """Have memory made for the first capture, once the state is as large as it will be.

        An optimizer has its moments behind the first step, or behind a restore. `checkpointed`
        has asked for what was there before, since a barrier may stand behind the first batch.
        """
        if not self._expects_capture or self._feed is None or self._reader is None:
            return
        if self._kept.has_restored or self._reader.has_handled:
            self._expects_capture = False
            self._kept.expect_capture(self._feed)

    def _capture(self, checkpoint_id: int | None) -> StateFile | None:
        """Return the state as it is now, for the checkpoint or, with None, every later one."""
        if self._feed is None or self.input_schema is None or self._kept.is_empty:
            return None
        return self._kept.capture(self._feed, checkpoint_id)

    def _spread(self, memory: memoryview) -> memoryview:
        """Return what the first process of the role gives. Collective.

        Raises:
            PlanError: There is no master, so the processes do not know each other.
        """
        if self.role not in self.cluster:
            msg = (
                "ctx.checkpointed: each process of this role is one alone, so a checkpoint of "
                "another number of them cannot be restored. Keep values in ctx.state and merge "
                "them by ctx.merge_state, or restore the job with the same parallelism"
            )
            raise PlanError(msg)
        spec = StarSpec(
            name=f"restored/{self.role}/{self.attempt}",
            rank=self.index,
            world_size=self.parallelism,
            host=self.cluster[self.role][self.index],
            gather_timeout_s=self.timeouts.gather_timeout_s,
            collective_timeout_s=self.timeouts.collective_timeout_s,
            check=require_no_stop,
            met_by="ctx.checkpointed",
            advice="Restore every process from the same checkpoint",
        )
        with closing(open_star(spec, self._link)) as star:
            return spread_bytes(star, memory)

    def _require_input(self, name: str) -> None:
        if self.input_schema is None:
            msg = (
                f"{name} goes into Flink's checkpoints in step with the rows of an input, and "
                "this role has none. Save by ctx.checkpoint_path, and go on from "
                "ctx.latest_checkpoint()"
            )
            raise UsageError(msg)

    def _restored_place(self, epochs: int) -> InputPlace | None:
        """Return where to go on in the passes over the input.

        Raises:
            PlanError: The checkpoint does not hold the rows before it: it is of one pass, or of
                a function that keeps no state.
        """
        place: InputPlace | None = self._kept.restored_part("input", None)
        if place is None and epochs > 1 and self._kept.began_behind_rows:
            msg = (
                f"epochs={epochs} in a job that was restored from "
                + ("the checkpoint of one pass" if self._kept.has_restored else "a checkpoint")
                + ", which does not hold the rows before it: later passes would miss them. Use "
                "epochs=1, or start the job without restoring it. With ctx.checkpointed or "
                "ctx.state the checkpoints of several passes hold the rows"
            )
            raise PlanError(msg)
        return place
