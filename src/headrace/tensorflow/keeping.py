"""What a TensorFlow process keeps in Flink's checkpoints."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from headrace.errors import PlanError, UsageError
from headrace.exchange import StateFile
from headrace.framework.stopping import require_no_stop
from headrace.role import Servable, TrainingContext, require_not_restored
from headrace.role.at_rest import meet_at_rest
from headrace.role.peers import StarSpec
from headrace.tensorflow.alone import AloneSteps
from headrace.tensorflow.cluster import CHIEF, EVALUATOR, TFCluster
from headrace.tensorflow.generators import TFGenerators
from headrace.tensorflow.lone_step import LoneStep
from headrace.tensorflow.passes import Passes
from headrace.tensorflow.served import ServedSteps
from headrace.tensorflow.settings import TFSettings

if TYPE_CHECKING:  # a program that plans a job needs no TensorFlow
    from headrace.tensorflow.portions import Portions
    from headrace.tensorflow.ps_client import ParameterServers
    from headrace.tensorflow.servable import ServedForm

__all__ = ["TFKeepingContext"]

_LOG = logging.getLogger(__name__)
_TURN_S = 1.0
_TOLD = 20
"""So many names are told of what is in no checkpoint."""


class TFKeepingContext(TrainingContext):
    """The part of a `TFContext` that has to do with Flink's checkpoints."""

    settings: TFSettings
    _cluster: TFCluster
    _generators: TFGenerators
    _portions: Portions | None
    _servers: ParameterServers | None = None
    _keeping: Collection[Any] = ()  # what has the states of the objects that were named

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._turn = threading.RLock() if self._barriers is None else self._barriers.turn
        self._has_left = False
        self._generators.note_thread()
        self._dataset_passes = Passes(self._kept.restored_epoch)
        self._has_new_iterator = False
        self._is_iterated_itself = False
        self._told_of: set[str] = set()
        self._watch = LoneStep(lambda: self._reader is not None)

    def watch_steps(self) -> None:
        """Notice a step on rows behind a checkpoint without its model; `TFEntry` calls this."""
        if self.input_schema is not None and self._kept.misses_rows:
            self._watch.open()

    def checkpointed(self, **objects: Any) -> Any:
        """Keep objects in Flink's checkpoints; see `RoleContext.checkpointed`.

        Keras models and optimizers, variables, `tf.Module` and `tf.train.Checkpoint` are taken
        as they are; an optimizer that is not built yet is built for the model beside it. Call
        it before `data_parallel`. A `tf.train.Checkpoint` writes files: the loop waits while it
        goes to a disk and back.

        Random numbers: the states of Keras' layers are variables of the model; a
        `tf.random.Generator` or `keras.random.SeedGenerator` of your own is kept if it is
        named. The global ones of both are kept anyway, and so is what `tf.random.set_seed`
        gives to operations that you call outside of functions. An operation of `tf.random` in a
        `tf.function`, or with a ``seed`` of its own, counts inside TensorFlow, which lets
        nobody look: it begins anew. Draw from a generator there.

        One worker makes a step on each batch of `dataset` before the next is asked for. Nothing
        may hold rows back behind it (``shuffle``, ``prefetch``): a checkpoint would miss them.
        Where the steps of an optimizer that is named, or of a model, tell that, it is an error.
        An iteration over the dataset itself that makes no step (``evaluate``, ``adapt``) is
        none.

        With parameter servers it is collective, also at the first start. All workers stop at
        a checkpoint's barrier, until worker 0 has read what they have in common; call it
        behind `parameter_servers`, and make no step before.

        Raises:
            ConfigError: A model is not built, an optimizer belongs to no one model, or a
                `tf.train.Checkpoint` is named in a job with parameter servers.
            PlanError: The job has a chief beside parameter servers, or what
                `RoleContext.checkpointed` says.
            WaitTimeoutError: Not all came in time: with parameter servers within
                `timeouts.gather_timeout_s`, and `timeouts.process_start_timeout_s` for each.
        """
        if self._cluster.servers and self._cluster.addresses.get(CHIEF):
            raise PlanError(_CHIEF)
        self._generators.note_thread()
        given = super().checkpointed(**objects)
        if not self._kept.misses_rows:
            self._watch.close()
        if self._cluster.servers:
            self._rest_together()
        return given

    def exported(self, model: Any, *, form: ServedForm = "keras") -> None:
        """Choose what `export_to` writes for each completed checkpoint, and in which form.

        Not needed where `checkpointed` has named one Keras model, or one as `model`, and
        ``.keras`` is the form. Call it after `checkpointed`, before the input is read. It does
        nothing in a job that was planned without `export_to`.

        Args:
            model: One of the Keras models that `checkpointed` has named.
            form: "keras" for a file (`latest.keras`), "saved_model" for a directory (`latest`).

        Raises:
            UsageError: `checkpointed` has not named it, or the input is being read.
            ConfigError: It cannot be copied, or `form` is none.
        """
        from headrace.tensorflow.servable import KerasForm

        self._choose(model, lambda each: KerasForm(each, form))

    def tell_begun(self) -> None:
        """Tell that the entry function is about to be called; `TFEntry` does."""
        self._generators.note_thread()
        super().tell_begun()

    def _make_generators(self) -> TFGenerators:
        return TFGenerators()

    def _is_model(self, each: object) -> bool:
        import keras

        return isinstance(each, keras.Model)

    def _servable(self, model: Any) -> Servable:
        from headrace.tensorflow.servable import KerasForm

        return KerasForm(model)

    @property
    def has_servers(self) -> bool:
        """Whether this process has connected to parameter servers."""
        return self._servers is not None

    def _require_trained_rows(self, *, is_reading: bool) -> None:
        """Refuse what was not restored, once rows are trained on; who only looks may look."""
        if self.input_schema is not None:
            require_not_restored(is_restored=is_reading and self._kept.misses_rows)
        elif self.role != EVALUATOR:
            require_not_restored(is_restored=self.is_restored)

    def _rest_together(self) -> None:
        """Meet the other workers; nobody steps before the servers have what was restored."""
        self._wait_for_servers()
        if self.parallelism == 1:
            return
        assert isinstance(self._steps, ServedSteps)
        assert self._barriers is not None
        timeouts, count = self.timeouts, self.parallelism
        spec = StarSpec(
            name=f"checkpointed/{self.role}/{self.attempt}",
            rank=self.index,
            world_size=count,
            host=self.cluster[self.role][self.index],
            # At the servers they take turns.
            gather_timeout_s=timeouts.gather_timeout_s
            + count * timeouts.process_start_timeout_s,
            gather_setting="timeouts.gather_timeout_s + "
            f"{count} * timeouts.process_start_timeout_s",
            collective_timeout_s=timeouts.collective_timeout_s,
            check=require_no_stop,
            met_by="ctx.checkpointed, behind its turn at the parameter servers",
        )
        at_rest = meet_at_rest(spec, self._link, self._come_to_rest, timeouts)
        self._steps.rest_with(at_rest, self._barriers)

    def _stateful(self, objects: Mapping[str, Any]) -> Mapping[str, Any]:
        from headrace.tensorflow.stateful import as_stateful

        found = as_stateful(
            objects,
            self._work_dir,
            has_servers=bool(self._cluster.servers),
            keeps_served=self.index == 0,
        )
        self._keeping = found.values()
        return found

    def _begin_reading(self) -> None:
        """Look whether what is trained is kept, and was restored."""
        self._watch.require_no_compiled_step()
        if self._servers is None:
            return
        self._require_trained_rows(is_reading=True)
        if self._reader is None:
            self._tell_of_unnamed()

    def _tell_of_unnamed(self) -> None:
        """Warn, once, of what this process has made on the servers and nobody keeps.

        Called again at each capture: an optimizer makes its variables at its first step.
        """
        if self._servers is None or self.index or not self._kept.has_objects:
            return
        from headrace.tensorflow.stateful import served_names

        known = {name for each in self._keeping for name in served_names(each)} | self._told_of
        for by_optimizers, text in ((False, _UNNAMED), (True, _UNNAMED_OPTIMIZER)):
            unnamed = self._servers.made_but(known, by_optimizers=by_optimizers)
            if unnamed:
                self._told_of.update(unnamed)
                more = len(unnamed) - _TOLD
                rest = f" and {more} more" if more > 0 else ""
                _LOG.warning(text, ", ".join(map(repr, unnamed[:_TOLD])) + rest)

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
        self._has_left = True  # an iterator that outlives the function takes no further turn
        try:
            if is_success and not self._is_closed:
                self._require_whole_pass(has_more=False)
        except UsageError:
            super().close(is_success=False)
            raise
        super().close(is_success=is_success)

    def _end(self, *, is_success: bool, has_ended_well: bool) -> None:
        self._has_left = True  # a stop comes here without `close`
        # A turn is over soon, but for one that waits for servers or for room in the output:
        # who fails or is stopped does not wait for what may never come.
        has_turn = self._turn.acquire(timeout=-1 if has_ended_well else _TURN_S)
        try:
            super()._end(is_success=is_success, has_ended_well=has_ended_well)
        finally:
            if has_turn:
                self._turn.release()

    def _close_parts(self) -> None:
        super()._close_parts()
        self._watch.close()

    def _capture(self, checkpoint_id: int | None) -> StateFile | None:
        self._come_to_rest()
        self._tell_of_unnamed()
        return super()._capture(checkpoint_id)

    def _come_to_rest(self) -> None:
        """Refuse half a step; wait until servers have what this process has sent them."""
        if self._portions is not None:
            self._require_single_steps()
        self._require_stepped()
        if self._kept.has_objects:
            self._wait_for_servers()

    def _wait_for_servers(self) -> None:
        if self._servers is not None:
            from headrace.tensorflow.internals import wait_for_servers

            wait_for_servers()

    def _note_iterator(self) -> None:
        """Note that the next iteration is over `ctx.dataset` itself: nothing stands behind."""
        self._generators.note_thread()
        self._has_new_iterator = True

    def _require_single_steps(self) -> None:
        """Refuse executions of several steps of Keras' where each must be over by itself."""
        is_by_itself = self.world_size == 1 or self.settings.is_scaled_to_one
        if (is_by_itself or self._cluster.servers) and self._steps_at_once > 1:
            raise UsageError(_UNFINISHED)

    def _begin_iteration(self) -> None:
        """Say that an iteration of `ctx.dataset` begins, with what is to be stepped on it."""
        self._require_single_steps()  # not as late as the first checkpoint
        self._is_iterated_itself, self._has_new_iterator = self._has_new_iterator, False
        if isinstance(self._steps, AloneSteps):
            self._steps.watch([*self._kept.named.values()])

    def _require_stepped(self) -> None:
        """Refuse to capture while rows that were given out are in nobody's state."""
        steps = self._steps
        is_watched = isinstance(steps, AloneSteps) and self._kept.has_objects
        if (
            not is_watched or self._is_closed or self._drops_rows
        ):  # a loop that was left has no use for its rest
            return
        assert isinstance(steps, AloneSteps)
        stepped = steps.stepped
        if not stepped and self._is_iterated_itself:  # evaluated, or adapted to: none is due
            return
        if stepped < steps.given:
            raise UsageError(_HELD_BACK.format(stepped=stepped, given=steps.given))

    @property
    def _steps_at_once(self) -> int:
        """Steps of an execution of Keras', as far as it is known."""
        named = self._kept.named.values()
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
    def cluster_spec(self) -> dict[str, list[str]]:
        """What `tf.train.ClusterSpec` takes: role to the "host:port" of its processes."""
        return self._cluster.spec

    @property
    def is_chief(self) -> bool:
        """Whether this process leads: the chief, or worker 0 where there is none."""
        return self._cluster.is_chief

    @property
    def rank(self) -> int:
        """This process' number among the chief and the workers, 0 to `world_size` - 1."""
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
    "does not step on each batch. Leave that out (evaluate and adapt take the dataset as it "
    "is), or read with ctx.batches"
)
_CHIEF = (
    "ctx.checkpointed: this job has a chief beside its parameter servers. A chief gets no "
    "rows, and so no barrier of a checkpoint: nothing would hold it back while the variables "
    "on the servers are captured. Plan it with chief=False, or save with ctx.checkpoint_path"
)
_UNNAMED = (
    "ctx.checkpointed: no object that was named holds the variables %s, which are on the "
    "parameter servers: they are in no checkpoint, and begin anew behind a restored one. Name "
    "what holds them as well"
)
_UNNAMED_OPTIMIZER = (
    "ctx.checkpointed: no optimizer that was named holds the variables %s, which an optimizer "
    "has made on the parameter servers: they are in no checkpoint, and begin anew behind a "
    "restored one, as does its learning rate. Name the optimizer as well: "
    "ctx.checkpointed(model=model, optimizer=optimizer)"
)
_UNFINISHED = (
    "ctx.checkpointed with steps_per_execution above 1 in one worker, or where Flink's "
    "scheduler may leave one (workers=(1, n)), or on parameter servers: Keras asks for the "
    "next batch while the step on the one before still computes, so a checkpoint would hold "
    "half of it. Compile the model with steps_per_execution=1"
)
