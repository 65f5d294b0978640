"""The context of a TensorFlow process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import pyarrow as pa

from headrace._counts import require_count
from headrace.errors import PlanError, UsageError
from headrace.framework.stopping import require_no_stop
from headrace.role import (
    BatchReader,
    EpochEnded,
    InputEnded,
    NullRule,
    PollResult,
    ReadyBatch,
    require_not_restored,
)
from headrace.tensorflow.alone import AloneSteps
from headrace.tensorflow.cluster import TFCluster
from headrace.tensorflow.keeping import TFKeepingContext
from headrace.tensorflow.served import ServedSteps
from headrace.tensorflow.settings import TFSettings

if TYPE_CHECKING:  # a program that plans a job needs no TensorFlow
    import tensorflow as tf

    from headrace.tensorflow.dataset import ElementLayout
    from headrace.tensorflow.lockstep import Lockstep
    from headrace.tensorflow.portions import Portions
    from headrace.tensorflow.scalars import ScalarWriter

__all__ = ["TFContext"]

_A = TypeVar("_A")
_M = TypeVar("_M")
_SLICE_S = 0.02  # of a wait that holds the queue, while another thread may want to emit
_LEFT = "The entry function has ended: the input gives no more rows"


class TFContext(TFKeepingContext):
    """The one argument of a TensorFlow entry function.

    When the function starts, the addresses of all processes are known, their ports are kept for
    them, and ``TF_CONFIG`` says the same, so that the strategies of `tf.distribute` work as
    they are.

    Thread model: as `RoleContext`, for the thread of the entry function. The dataset is read by
    threads of TensorFlow's, which take turns with it.
    """

    settings: TFSettings = TFSettings()
    _steps: Lockstep | AloneSteps

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._cluster = TFCluster(role=self.role, index=self.index, addresses=self.addresses)
        self._steps = ServedSteps(self) if self._cluster.servers else AloneSteps()
        self._scalars: ScalarWriter | None = None
        self._portions: Portions | None = None
        self._error: BaseException | None = None

    @property
    def is_saver(self) -> bool:
        """Whether `save` writes in this process; see `TFCluster.is_saver`."""
        return self._cluster.is_saver(on_stream=self.settings.is_stream)

    def dataset(
        self,
        rows: int = 1024,
        *,
        columns: Sequence[str] | None = None,
        features: Sequence[str] | None = None,
        label: str | Sequence[str] | None = None,
        shapes: Mapping[str, Sequence[int]] | None = None,
        nulls: NullRule = "error",
        defaults: Mapping[str, Any] | None = None,
    ) -> tf.data.Dataset:
        """Return the input as a dataset of batches, one pass for each time it is iterated.

        ``model.fit(ctx.dataset(256, label="y"), epochs=ctx.epochs)`` trains on as many passes
        as the job was planned with. Elements are mappings of column names to tensors, by the
        rules of `headrace.tensorflow.columns`. One iteration goes on at a time, and reads
        nothing ahead: the next goes on where it was left. Rows count as handled when more are
        asked for, up to 4,096 rows later.

        Args:
            rows: Rows per batch, at least 1.
            columns: Which; None for all, or for `features` and `label` where `features` is set.
            features: Columns of numbers to stack into one float32 matrix (rows, k), in place of
                the mapping, which is the quickest way.
            label: Column, or columns, to be the second part of the element, as `fit` takes it.
            shapes: Shape of one row, for columns of arrays that have one length; other arrays
                become ragged tensors.
            nulls: "error", or "mask" for a second tensor ``<column>__valid``.
            defaults: Values for NULL, by column.

        Returns:
            Elements of (rows,), (rows, *shape) or ragged (rows, None), by name; the columns of
            `label` apart, one as a tensor, several by name.

        Raises:
            ConfigError: A name or type does not fit the input, or `rows` is below 1.
            UsageError: The role has no input.
            tf.errors.OpError: When it is iterated, with the text of an error of
                `RoleContext.batches`, of a `CollectiveError`, or of a `UsageError` as all
                passes are over. The job's failure tells that error itself.
        """
        from headrace.tensorflow.dataset import Layout

        schema = self.input_schema
        if schema is None:
            msg = f"ctx.dataset: the role {self.role!r} gets no rows; read your own files"
            raise UsageError(msg)
        how: Any = {"shapes": shapes, "nulls": nulls, "defaults": defaults}
        layout = Layout.of_columns(schema, columns, features=features, label=label, **how)
        return self.dataset_of(layout, rows)

    def dataset_of(self, layout: ElementLayout, rows: int) -> tf.data.Dataset:
        """Return a dataset of what `layout` makes of batches of `rows` rows; see `dataset`."""
        from headrace.tensorflow.dataset import build_dataset
        from headrace.tensorflow.internals import tell_iterators
        from headrace.tensorflow.portions import Portions, batches_at_once

        self._generators.note_thread()
        rows = require_count("rows", rows)
        at_once = batches_at_once(rows) if layout.can_be_cut else 1
        self._portions = self._portions or Portions()
        read = layout.read if at_once == 1 else functools.partial(layout.read_batches, rows)
        following = functools.partial(self._next_of_pass, rows, at_once, read)
        made = build_dataset(layout, following, self._portions if at_once > 1 else None)
        tell_iterators(made, self._note_iterator)
        return made

    def emit(self, columns: Any, timestamps_ms: Any = None) -> None:
        """Send rows downstream; see `RoleContext.emit`."""
        with self._turn:
            super().emit(columns, timestamps_ms)

    def data_parallel(
        self,
        model: _M,
        optimizer: Any = None,
        *,
        loss_reduction: Literal["mean", "sum"] = "mean",
    ) -> _M:
        """Make every step of the optimizer one step of all workers on the union of their rows.

        The result is that of one process that gets the union of the batches in each step,
        within float tolerance, however the rows are split. Keras' ``fit`` and own loops are
        written as for one process. A worker without rows takes part with no weight (a shadow
        step), so nobody waits for rows that do not come, and the input ends for all when that
        of the last one has.

        A step's weight is the rows of its batch: of `dataset`, one batch for each step; of
        `batches`, all since the last step. Workers that read their own files have equal weight.
        The learning rate and floating-point state that is not trained (running means) are
        averaged in each step. XLA is off for this model.

        Collective: every worker calls it once, with the same model, before its first step. With
        one worker nothing is changed, bit for bit.

        Args:
            model: A Keras model that is built.
            optimizer: A Keras optimizer; None: that of the compiled model.
            loss_reduction: "mean" if the loss is the mean over the rows of the batch, "sum" if
                it is their sum.

        Returns:
            `model`.

        Raises:
            UsageError: It was called before, or in a role that does not train.
            ConfigError: The model is not built or not that of a peer, or has no optimizer.
            CollectiveError: A peer ended, or did not come within
                `timeouts.collective_timeout_s`.
            WaitTimeoutError: Not all came within `timeouts.gather_timeout_s`.
            PlanError: The job has parameter servers, or was restored from a Flink checkpoint
                and the model was not.

        Source: docs/adr/0030, 0095, 0096.
        """
        from headrace.tensorflow.parallel import open_lockstep

        require_not_restored(is_restored=self._kept.misses_rows)
        if self._is_data_parallel:
            msg = "ctx.data_parallel was called before; it takes one model and one optimizer"
            raise UsageError(msg)
        self._is_data_parallel = True
        self._steps = open_lockstep(
            model,
            optimizer,
            self._cluster,
            self._link,
            reduction=loss_reduction,
            attempt=self.attempt,
            idle_after_s=self.settings.idle_after_s,
            timeouts=self.timeouts,
            check=require_no_stop,
        )
        self._begin_steps(model, optimizer)
        self._steps.count_batches(self._portions.rest if self._portions else [])
        return model

    @contextmanager
    def parameter_servers(self) -> Iterator[None]:
        """Put the variables of models and optimizers that are made here on the servers.

        Training is asynchronous: each worker steps at its own pace on shared variables. The
        first worker to make a variable gives it its value; a worker that comes later, or comes
        back, finds what it has become. Every worker makes the same variables in the same order.
        Metrics, learning rates and states of random numbers stay in the process; an optimizer
        that is made outside follows the model.

        Blocks until it is this process' turn to connect, at most
        `timeouts.process_start_timeout_s` for each that comes before. XLA is off here.

        Name what is made here to `checkpointed` as well, and Flink's checkpoints hold it.

        Raises:
            PlanError: The job has no parameter servers, or was restored from a Flink
                checkpoint, and what trains on them was not, or gets no rows.
            ServerLostError: A parameter server has ended.
            WaitTimeoutError: The servers or the turn did not come in time.

        Example:
            with ctx.parameter_servers():
                model = keras.Sequential([...])
            model.compile("adam", "mse", steps_per_execution=10)
            model.fit(ctx.dataset(256, label="y"))
        """
        from headrace.tensorflow.ps_client import ParameterServers

        self._require_trained_rows(is_reading=self._reader is not None)
        if not self._cluster.servers:
            msg = "ctx.parameter_servers: this job has none; plan it with ps=1 or more"
            raise PlanError(msg)
        if self._servers is None:
            self._servers = ParameterServers(self._cluster, self._link, self.timeouts)
        with self._servers.scope():
            yield

    def save(self, thing: Any, name: str = "model.keras") -> Path:
        """Write a model into the job's output directory, in one process of those that train.

        Which one, `is_saver` says; an evaluator writes too. After the own input has ended it
        waits until the others' have: the model is the last one, also on parameter servers.

        Args:
            thing: A Keras model, or a `tf.Module`.
            name: File or directory name, may have directories: ``.keras`` for a whole model,
                ``.weights.h5`` for its weights, no suffix for a SavedModel.

        Returns:
            The path, in every process.

        Raises:
            UsageError: The job was planned without `output_dir`.
            ConfigError: `name` leads out of the output directory, or does not fit.
            CollectiveError: A peer ended before its last step, or did not come to it.
            OSError: The file cannot be written.
        """
        from headrace.tensorflow.saving import save_atomically

        path = self._place_to_save(name)
        if self.is_saver:
            save_atomically(thing, path)
            self._reporter.note()
        return path

    def report(self, **values: Any) -> None:
        """Tell the latest values, to Flink and, with a log directory, to TensorBoard.

        After `data_parallel`, `steps` is always among them. See `RoleContext.report`.
        """
        values = self._with_steps(values)
        with self._turn:
            super().report(**values)
            if self._scalars is not None:
                self._scalars.update({name: float(value) for name, value in values.items()})

    def stop_job(self, reason: str, *, savepoint: bool = False) -> None:
        """Ask for the end of all roles with success; see `RoleContext.stop_job`."""
        with self._turn:
            super().stop_job(reason, savepoint=savepoint)

    def close(self, *, is_success: bool) -> None:
        """End the process's part; see `TrainingContext.close`."""
        self._steps.forget_batches()  # the loop has been left
        super().close(is_success=is_success)

    def use_settings(self, settings: Any) -> None:
        """Take what the job was planned with; see `TrainingContext.use_settings`."""
        super().use_settings(settings)
        if settings.log_dir is not None:
            from headrace.tensorflow.scalars import ScalarWriter

            place = settings.log_dir / f"{self.role}-{self.index}"
            attempt = "" if self.attempt == 1 else f"attempt-{self.attempt}"
            self._scalars = ScalarWriter(place / attempt)

    def cause_of(self, error: BaseException) -> BaseException:
        """Return what was raised behind `error`, where TensorFlow hands on its text only."""
        known = (self._error, self._steps.error, self._watch.error)
        return next((e for e in known if e and type(e).__name__ in str(error)), error)

    def _close_parts(self) -> None:
        super()._close_parts()
        if self._scalars is not None:
            self._scalars.close()

    @property
    def timestamps_ms(self) -> pa.Array | None:
        """Flink timestamps of the last batch's rows; see `RoleContext.timestamps_ms`."""
        stamps = super().timestamps_ms
        place = None if self._portions is None else self._portions.place()
        return stamps if stamps is None or place is None else stamps.slice(*place)

    def open_reader(self, *, rows: int, epochs: int = 1) -> BatchReader:
        """Return the reader of the input; what a dataset was left with comes first there."""
        self._begin_reading()
        reader = super().open_reader(rows=rows, epochs=epochs)
        rest = [] if self._portions is None else self._portions.withdraw()
        if rest:
            self._steps.withdraw_batches(len(rest))
            self._dataset_passes.count(-len(rest))
            reader.put_back(sum(rest))
        reader.at_once = 1
        return reader

    def _ready(self, *args: Any, **options: Any) -> Iterator[pa.RecordBatch]:
        return self._dataset_passes.none_since(super()._ready(*args, **options))

    def _next_of_pass(
        self, rows: int, at_once: int, read: Callable[[pa.RecordBatch], _A], is_first: bool
    ) -> tuple[int, _A] | None:
        """Return number and arrays of the next portion, or None at the end. Any thread."""
        try:
            with self._turn:
                if is_first:
                    self._require_whole_pass(has_more=True)
                if not self._dataset_passes.goes_on(is_first=is_first, epochs=self.epochs):
                    return None
                self.open_reader(rows=rows, epochs=self.epochs).at_once = at_once
                if is_first:
                    self._begin_iteration()
            columns = self._take_of_pass()
            if columns is None:
                return None
            whole, last = divmod(columns.num_rows, rows)
            batches = [rows] * whole or [last]
            self._steps.count_batches(batches)
            self._dataset_passes.count(len(batches))
            assert self._portions is not None
            return self._portions.give(batches) if at_once > 1 else 1, read(columns)
        except BaseException as error:
            self._error = error  # TensorFlow hands on its text only
            raise

    def _row_counts(self) -> tuple[int, int]:
        rows_in, rows_out = super()._row_counts()
        left = self._portions.rest if self._portions and not self.epoch else []
        return rows_in - sum(left), rows_out

    def _take_of_pass(self) -> pa.RecordBatch | None:
        assert self._reader is not None
        while True:
            match self._wait(self._reader.poll):
                case ReadyBatch(columns, timestamps_ms, _):
                    self._timestamps_ms = timestamps_ms
                    return columns
                case EpochEnded(epoch):
                    self._on_epoch_ended(epoch)
                    if epoch + 1 == self.epochs:
                        continue  # the end of the input follows
                case InputEnded():
                    self._on_input_ended()
            self._dataset_passes.end()
            return None

    def _wait(self, poll: Callable[[float], PollResult | None]) -> PollResult:
        def take_turn(timeout_s: float) -> PollResult | None:
            require_no_stop()
            with self._turn:
                if self._has_left:
                    raise UsageError(_LEFT)
                return poll(min(timeout_s, _SLICE_S))

        return super()._wait(take_turn)

    def _attend(self) -> None:
        require_no_stop()
        with self._turn:
            super()._attend()
