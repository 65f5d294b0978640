"""What every worker of a `KerasEstimator` does."""

from __future__ import annotations

import functools
import logging
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.estimator import Course, FitState, require_finite
from headrace.estimator.history import VALIDATION
from headrace.tensorflow.context import TFContext
from headrace.tensorflow.examples import ExampleLayout
from headrace.tensorflow.fitting import MODEL_FILE, Fitting

__all__ = ["fit"]

_Trained: TypeAlias = tuple[int, list[Any]]
"""Rows, and what Keras' metrics hold of them."""


def fit(fitting: Fitting, ctx: TFContext) -> None:
    """Train; worker 0 saves the model, parameters and history into the output directory."""
    # The first weights are those of worker 0; what layers draw later differs.
    keras.utils.set_random_seed(fitting.seed + ctx.rank)
    model = _compiled(fitting)
    assert ctx.input_schema is not None
    layout = ExampleLayout(fitting.features, fitting.label, ctx.input_schema, model)
    _build_metrics(model, layout)
    if fitting.early_stopping is not None:
        fitting.early_stopping.require_known(list(model.get_metrics_result()))
    epochs = _Epochs(fitting, ctx, layout, model)
    if model.steps_per_execution > 1:
        if ctx.settings.export_to is not None:
            raise ConfigError(_EXPORTS_NOTHING.format(model.steps_per_execution))
        _LOG.warning(_KEEPS_NOTHING, model.steps_per_execution)
    else:
        ctx.checkpointed(model=model, optimizer=model.optimizer, fit=epochs.state)
    ctx.data_parallel(model)
    ctx.add_up([])  # all meet now: behind the first epoch one may come much later
    rows = ctx.dataset_of(layout, fitting.batch_rows)
    finalize = model.optimizer.finalize_variable_values
    model.optimizer.finalize_variable_values = _leave  # else after each pass: `save` does
    for epoch in range(ctx.epoch, ctx.epochs):
        if epochs.state.is_over:
            break
        # One call for each pass: Keras makes all of a call as long as the first, which has only
        # the rest of a pass behind a restored checkpoint.
        span = {"initial_epoch": epoch, "epochs": epoch + 1}
        model.fit(rows, **span, callbacks=[epochs], shuffle=False, verbose=0)
    model.optimizer.finalize_variable_values = finalize
    epochs.save()


_LOG = logging.getLogger(__name__)
_KEEPS_NOTHING = (
    "The model is compiled with steps_per_execution=%d, so Flink's checkpoints hold no state "
    "of this fit: a job that is restored from one is refused. Compile it with "
    "steps_per_execution=1 if it is to go on behind a failure."
)
_EXPORTS_NOTHING = (
    "export_to= writes the model that Flink's checkpoints hold, and they hold none of a fit "
    "whose model is compiled with steps_per_execution={}. Compile it with steps_per_execution=1"
)


class _Epochs(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Adds up what the workers saw in an epoch, looks at held-out rows, decides with them."""

    def __init__(
        self, fitting: Fitting, ctx: TFContext, layout: ExampleLayout, model: Any
    ) -> None:
        super().__init__()
        self.set_model(model)
        self._fitting = fitting
        self._ctx = ctx
        self._layout = layout
        self._has_held_out = ctx.settings.has_held_out
        self._course = Course(fitting.early_stopping, has_held_out=self._has_held_out)
        self._epoch = 0
        self._seen_rows = 0
        self._ended: _Trained | None = None
        self._restored: _Trained | None = None
        self.state = FitState(
            self._course,
            epochs=ctx.epochs,
            trained=self._trained,
            restore_trained=self._restore_trained,
            copy_model=model.get_weights if ctx.is_saver else None,
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Set the learning rate by the schedule, and note it; or go on where it was."""
        self._epoch = epoch
        self._ended = None
        self._seen_rows = self._layout.rows
        if not self.state.is_new(epoch):
            self._take_up()
            return
        optimizer = self.model.optimizer
        if self._fitting.schedule is not None:
            rate = float(optimizer.learning_rate.numpy())
            optimizer.learning_rate = float(self._fitting.schedule(epoch, rate))
        self.state.begin_epoch(epoch, float(optimizer.learning_rate.numpy()))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Report the mean loss so far; stop where it is no number."""
        epoch, loss = self._epoch, float(logs["loss"])
        place = f", at step {self._ctx.steps}, on worker {self._ctx.rank}"
        require_finite("loss", loss, epoch, place)
        self._ctx.report(epoch=epoch, loss=loss)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Look at the held-out rows and decide, as all workers do. Collective."""
        self._ended = ended = self._trained()
        values = {**self._common_values(ended[0]), "learning_rate": self.state.rate}
        if self._has_held_out:
            values |= self._evaluate()
        self.state.end_epoch(values)
        self._ctx.report(**values)

    def save(self) -> None:
        """Write the model, the best if one was kept, and its record; worker 0 does.

        The model stays as it is: a restored fit ends its last epoch once more.
        """
        model = self.model
        last = model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_weights)
        if self.state.best is not None:
            model.set_weights(self.state.best)
        path = self._ctx.save(model, MODEL_FILE)
        if self._ctx.is_saver:
            self._fitting.record.write(path.parent, self._course.history)
        model.set_weights(last)

    def _trained(self) -> _Trained:
        """Return the rows of the present epoch, and what the metrics hold of them."""
        if self._restored is not None:
            return self._restored
        if self._ended is not None:
            return self._ended
        held = [np.array(each.numpy()) for each in self._metric_variables()]
        return self._layout.rows - self._seen_rows, held

    def _restore_trained(self, trained: _Trained) -> None:
        own = [tuple(each.shape) for each in self._metric_variables()]
        kept = [each.shape for each in trained[1]]
        if own != kept:
            msg = f"the metrics hold values of the shapes {kept}, and here they have {own}"
            raise ValueError(msg)
        self._restored = trained

    def _take_up(self) -> None:
        """Give rows and metrics what they were at the restored checkpoint."""
        assert self._restored is not None
        rows, held = self._restored
        self._seen_rows -= rows
        for variable, value in zip(self._metric_variables(), held, strict=True):
            variable.assign(value)
        self._restored = None

    def _metric_variables(self) -> list[Any]:
        return [each for metric in self.model.metrics for each in metric.variables]

    def _evaluate(self) -> dict[str, float]:
        """Return loss and metrics on the held-out rows of all workers."""
        rows = 0

        def counted() -> Any:
            nonlocal rows
            for batch in self._ctx.arrow_held_out(self._fitting.batch_rows):
                rows += batch.num_rows
                yield batch

        self.model.reset_metrics()
        if next(self._ctx.arrow_held_out(1), None) is not None:
            try:
                self.model.evaluate(self._layout.dataset(counted()), verbose=0)
            except tf.errors.OpError as error:
                if self._layout.error is None:
                    raise
                raise self._layout.error from error
        found = self._common_values(rows)
        return {f"{VALIDATION}{name}": value for name, value in found.items()}

    def _common_values(self, rows: int) -> dict[str, float]:
        """Return the loss and the metrics over the rows of all workers, and how many.

        What Keras' metrics hold adds up: totals, counts, numbers of hits.
        """
        held = self._metric_variables()
        mine = [np.asarray(each.numpy(), np.float64) for each in held]
        flat = np.concatenate([np.array([rows], np.float64), *(each.ravel() for each in mine)])
        totals = np.array(self._ctx.add_up(flat.tolist()))
        place = 1
        for variable, own in zip(held, mine, strict=True):
            part = totals[place : place + own.size]
            variable.assign(part.reshape(own.shape).astype(variable.dtype))
            place += own.size
        if not totals[0]:
            return {}
        found = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        return {**found, "rows": float(totals[0])}


def _leave(variables: Any) -> None:
    """Leave the variables as they are."""


def _compiled(fitting: Fitting) -> Any:
    model = fitting.model()
    if not isinstance(model, keras.Model):
        msg = f"model: {fitting.model!r} made a {type(model).__name__}, and no keras.Model"
        raise ConfigError(msg)
    if not model.built:
        msg = (
            "model: it is not built, so it has no weights yet. Give it an Input layer, or call "
            "model.build(input_shape) where it is made"
        )
        raise ConfigError(msg)
    if fitting.loss is not None:
        metrics = fitting.metrics
        if isinstance(metrics, dict):
            made: Any = {name: _made(each) for name, each in metrics.items()}
        else:
            made = [_made(each) for each in metrics]
        optimizer = fitting.optimizer
        model.compile(
            optimizer=optimizer if isinstance(optimizer, str) else optimizer(),
            loss=_made(fitting.loss),
            metrics=made,
        )
    if not model.compiled:
        msg = "model: it is not compiled, so loss= and optimizer= are needed; or compile it"
        raise ConfigError(msg)
    return model


def _made(given: Any) -> Any:
    """Return an instance of a class, or of a partial of one; anything else as it is."""
    made_of = given.func if isinstance(given, functools.partial) else given
    return given() if isinstance(made_of, type) else given


def _build_metrics(model: Any, layout: ExampleLayout) -> None:
    """Call the model on rows of zeros: a worker without rows needs its metrics too."""
    inputs, labels = layout.zeros
    try:
        model.evaluate(inputs, labels, batch_size=len(labels), verbose=0)
        found = model.get_metrics_result()
    except Exception as exc:
        msg = (
            f"The model cannot be trained on the table: on rows of zeros it raised "
            f"{type(exc).__name__}: {exc}"
        )
        raise ConfigError(msg) from exc
    for name, value in found.items():
        if name in ("rows", "learning_rate") or name.startswith(VALIDATION):
            msg = f"metrics: the name {name!r} is taken by the history; choose another"
            raise ConfigError(msg)
        if np.ndim(value):
            msg = (
                f"metrics: {name!r} has a result of shape {np.shape(value)}, and the history "
                "has one number for each epoch. Take a metric that averages, for example "
                "keras.metrics.F1Score(average='macro')"
            )
            raise ConfigError(msg)
    model.reset_metrics()
