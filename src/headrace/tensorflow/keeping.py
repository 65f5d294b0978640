"""What a TensorFlow process keeps in Flink's checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import PlanError, UsageError
from headrace.exchange import StateFile
from headrace.role import TrainingContext
from headrace.tensorflow.alone import AloneSteps
from headrace.tensorflow.cluster import TFCluster
from headrace.tensorflow.passes import Passes

if TYPE_CHECKING:  # a program that plans a job needs no TensorFlow
    from headrace.tensorflow.portions import Portions

__all__ = ["TFKeepingContext"]


class TFKeepingContext(TrainingContext):
    """The part of a `TFContext` that has to do with Flink's checkpoints."""

    _cluster: TFCluster
    _portions: Portions | None

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._dataset_passes = Passes(self._kept.restored_epoch)

    def checkpointed(self, **objects: Any) -> Any:
        """Keep objects in Flink's checkpoints; see `RoleContext.checkpointed`.

        Keras models and optimizers, variables, `tf.Module` and `tf.train.Checkpoint` are taken
        as they are; an optimizer that is not built yet is built for the model beside it. Call
        it before `data_parallel`.

        Random numbers: the states of Keras' layers are variables of the model; a
        `tf.random.Generator` is kept if it is part of what is named. Those of `tf.random` with
        a global seed begin anew.

        One worker makes a step on each batch of `dataset` before the next is asked for. Nothing
        may hold rows back behind it (``shuffle``, ``prefetch``): a checkpoint would miss them.
        Where the steps of an optimizer that is named, or of a model, tell that, it is an error.

        Raises:
            ConfigError: A model is not built, or an optimizer belongs to no one model.
            PlanError: The job has parameter servers, or what `RoleContext.checkpointed` says.
        """
        if self._cluster.servers:
            msg = (
                "ctx.checkpointed: Flink's checkpoints do not hold variables that are on "
                "parameter servers. Use ps=0, or save with ctx.checkpoint_path"
            )
            raise PlanError(msg)
        return super().checkpointed(**objects)

    def _stateful(self, objects: Mapping[str, Any]) -> Mapping[str, Any]:
        from headrace.tensorflow.stateful import as_stateful

        return as_stateful(objects, self._work_dir)

    def _begin_steps(self, *shared: object) -> None:
        if self._kept.began_behind_rows and self.rank != self.index:
            msg = (
                "This job was restored from a Flink checkpoint, and has a chief, which gets no "
                "rows and so no state: it would spread an untrained model. Plan it without"
            )
            raise PlanError(msg)
        super()._begin_steps(*shared, *(getattr(each, "optimizer", None) for each in shared))

    def close(self, *, is_success: bool) -> None:
        """End the process's part; see `TrainingContext.close`.

        Raises:
            UsageError: Keras has left rows of a pass out.
        """
        try:
            if is_success and not self._is_closed:
                self._require_whole_pass(has_more=False)
        except UsageError:
            super().close(is_success=False)
            raise
        super().close(is_success=is_success)

    def _capture(self, checkpoint_id: int | None) -> StateFile | None:
        if self.world_size == 1 and self._portions is not None and self._steps_at_once > 1:
            raise UsageError(_UNFINISHED)
        self._require_stepped()
        return super()._capture(checkpoint_id)

    def _watch_steps(self) -> None:
        """Say that an iteration of `ctx.dataset` begins, with what is to be stepped on it."""
        if isinstance(self._steps, AloneSteps):
            self._steps.watch(self._kept.named)

    def _require_stepped(self) -> None:
        """Refuse to capture while rows that were given out are in nobody's state."""
        steps = self._steps
        is_watched = isinstance(steps, AloneSteps) and self._kept.has_objects
        if not is_watched or self._is_closed:  # a loop that was left has no use for its rest
            return
        assert isinstance(steps, AloneSteps)
        if (stepped := steps.stepped) < steps.given:
            raise UsageError(_HELD_BACK.format(stepped=stepped, given=steps.given))

    @property
    def _steps_at_once(self) -> int:
        """Steps of an execution of Keras', as far as it is known."""
        named = self._kept.named
        return max((getattr(each, "steps_per_execution", 1) or 1 for each in named), default=1)

    def _require_whole_pass(self, *, has_more: bool) -> None:
        """Refuse an iteration of `ctx.dataset` that Keras has left before the pass was over."""
        rest = [] if self._portions is None else self._portions.rest
        passes = self._dataset_passes
        if not passes.is_cut(untaken=len(rest), at_once=self._steps_at_once):
            return
        left = sum(rest) + (0 if self._reader is None else self._reader.rows_left)
        if has_more or left:
            raise UsageError(_CUT.format(left=left, number=passes.number + 1))

    @property
    def rank(self) -> int:
        """This process' number among the chief and the workers."""
        return self._cluster.rank

    @property
    def world_size(self) -> int:
        """Processes that train: the chief and the workers."""
        return self._cluster.group_size


_CUT = (
    "An iteration of ctx.dataset was left with {left} rows of pass {number} left, after as "
    "many batches as the one before it took to its end. Keras' fit makes all its epochs as "
    "long as its first, and that had the rest of a pass only, as behind a restored checkpoint. "
    "Call fit for each pass: for e in range(ctx.epoch, ctx.epochs): model.fit(rows, "
    "epochs=e + 1, initial_epoch=e)"
)
_HELD_BACK = (
    "ctx.checkpointed: a checkpoint is due, and the optimizer has stepped on {stepped} of "
    "{given} batches that ctx.dataset has given out. It would miss the others: what stands "
    "behind ctx.dataset holds rows back (shuffle, prefetch) or groups them anew, or the loop "
    "does not step on each batch. Leave that out, or read with ctx.batches"
)
_UNFINISHED = (
    "ctx.checkpointed with steps_per_execution above 1 in one worker: Keras asks for the next "
    "batch while the step on the one before still computes, so a checkpoint would hold half of "
    "it. Compile the model with steps_per_execution=1"
)
