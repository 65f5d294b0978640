"""The estimator of Keras. Planning imports neither TensorFlow nor Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from headrace.config import ExchangeConfig, TimeoutConfig
from headrace.errors import ConfigError
from headrace.estimator import EarlyStopping, Estimator, FitRecord, FittedModel
from headrace.inference import Inputs, Source
from headrace.operator.training import TrainingPlan
from headrace.tensorflow.fitting import MODEL_FILE, Fitting
from headrace.tensorflow.job import train
from headrace.tensorflow.models import KerasModel

__all__ = ["FittedKerasModel", "KerasEstimator"]


class FittedKerasModel(FittedModel["KerasEstimator"]):
    """A Keras model that was trained: it scores tables, and can be saved, loaded, looked at.

    It is ``model.keras`` of its directory, with its weights and its architecture.
    """

    model_file = MODEL_FILE

    @property
    def handle(self) -> KerasModel:
        """The model as `predict` takes it."""
        custom = self.estimator.custom_objects
        return KerasModel(self.path / MODEL_FILE, {} if custom is None else custom)

    def keras_model(self) -> Any:
        """Return the model, not compiled. Imports Keras.

        Raises:
            ConfigError: Keras cannot read it here.
        """
        from headrace.tensorflow.loaded import read_keras_model

        return read_keras_model(self.path / MODEL_FILE, self.estimator.custom_objects or {})


class KerasEstimator(Estimator[FittedKerasModel]):
    """Trains a Keras model on a table, synchronously where there are several workers.

    The parameters are kept as they are given, and looked at when something is fitted. What is
    callable travels to the workers by cloudpickle. Rows are trained on in the order in which
    Flink brings them.

    Args:
        model: Function that returns a Keras model with an Input layer; it compiles it, unless
            `loss` and `optimizer` are given.
        loss: As `compile` takes it; of a class an instance is made in each worker.
        optimizer: Its name, or a function that makes one, for example
            ``functools.partial(keras.optimizers.Adam, 1e-3)``; a Keras learning-rate schedule
            goes in there.
        features: What of a row goes into the model; see `headrace.inference.Inputs`. None:
            the columns that are named as the model's inputs are.
        label: Column of numbers, (rows,), or of arrays of k, (rows, k); or a list of k columns
            of numbers, which become a float32 matrix (rows, k).
        outputs: Columns that `transform` adds, name to `DataTypes`; None: "prediction", FLOAT.
        batch_rows: Rows per batch of each worker, at least 1; a step takes one of each.
        epochs: Passes over the table, at most; at least 1.
        workers: How many processes train, at least 1.
        schedule: Function of epoch, from 0, and present learning rate that returns the rate of
            the epoch.
        metrics: As `compile` takes them; of classes, and partials of classes, instances are
            made in each worker. What they hold is added up over the workers.
        early_stopping: When to stop before; None: all epochs are trained.
        custom_objects: Classes and functions that the saved model names and Keras does not
            know.
        seed: Of the first weights, and of what layers draw at random; at least 0.
        environment: Environment variables of the workers.
        exchange: Size and pace of the memory queue.
        timeouts: Limits on every wait.
        spare_after_s: When spare processes are started, as for `train`; None: never.

    Example:
        >>> estimator = KerasEstimator(  # doctest: +SKIP
        ...     build_model, "mse", "adam", features=["distance", "departs"], label="late_min"
        ... )
        >>> model = estimator.fit(flights, held_out)  # doctest: +SKIP
        >>> model.transform(tomorrow).execute().print()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[[], Any],
        loss: Any = None,
        optimizer: str | Callable[[], Any] | None = None,
        *,
        label: Source,
        features: Inputs = None,
        outputs: Mapping[str, Any] | None = None,
        batch_rows: int = 1024,
        epochs: int = 1,
        workers: int = 1,
        schedule: Callable[[int, float], float] | None = None,
        metrics: Sequence[Any] | Mapping[str, Any] | None = None,
        early_stopping: EarlyStopping | None = None,
        custom_objects: Mapping[str, Any] | None = None,
        seed: int = 0,
        environment: Mapping[str, str] | None = None,
        exchange: ExchangeConfig | None = None,
        timeouts: TimeoutConfig | None = None,
        spare_after_s: float | None = 10.0,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.label = label
        self.features = features
        self.outputs = outputs
        self.batch_rows = batch_rows
        self.epochs = epochs
        self.workers = workers
        self.schedule = schedule
        self.metrics = metrics
        self.early_stopping = early_stopping
        self.custom_objects = custom_objects
        self.seed = seed
        self.environment = environment
        self.exchange = exchange
        self.timeouts = timeouts
        self.spare_after_s = spare_after_s

    def _plan_training(
        self,
        rows: Any,
        validation: Any,
        record: FitRecord,
        *,
        output_dir: Path,
        export_to: str | Path | None,
        keep_exports: int,
        name: str,
    ) -> TrainingPlan:
        return train(
            rows,
            self._fitting(record),
            workers=self.workers,
            epochs=self.epochs,
            held_out=validation,
            output_dir=output_dir,
            export_to=export_to,
            keep_exports=keep_exports,
            name=name,
            environment=self.environment,
            exchange=self.exchange,
            timeouts=self.timeouts,
            spare_after_s=self.spare_after_s,
        )

    def _fitting(self, record: FitRecord) -> Fitting:
        """Return what the workers do."""
        return Fitting(
            model=self.model,
            loss=self.loss,
            optimizer=self.optimizer,
            features=self.features,
            label=self.label,
            batch_rows=self.batch_rows,
            schedule=self.schedule,
            metrics=self.metrics or [],
            early_stopping=self.early_stopping,
            seed=self.seed,
            record=record,
        )

    def _require_parameters(self) -> None:
        super()._require_parameters()
        model: object = self.model
        if not callable(model) or hasattr(model, "fit"):
            msg = f"model={model!r} must be a function that returns the model"
            raise ConfigError(msg)
        if (self.loss is None) != (self.optimizer is None):
            msg = (
                f"loss={self.loss!r} and optimizer={self.optimizer!r} belong together: give "
                "both, or neither, and let the function of `model` compile it"
            )
            raise ConfigError(msg)
        if self.loss is None and self.metrics:
            msg = "metrics= belong to loss= and optimizer=; or let the function compile them"
            raise ConfigError(msg)
        optimizer: object = self.optimizer
        if optimizer is not None and not isinstance(optimizer, str) and not callable(optimizer):
            msg = (
                f"optimizer={optimizer!r} must be a name or what makes one in each worker, for "
                "example functools.partial(keras.optimizers.Adam, 1e-3)"
            )
            raise ConfigError(msg)
        metrics: object = self.metrics
        if metrics is not None and not isinstance(metrics, list | tuple | dict):
            msg = f"metrics={metrics!r} must be a list, as `compile` takes it"
            raise ConfigError(msg)
        schedule: object = self.schedule
        if schedule is not None and not callable(schedule):
            msg = f"schedule={schedule!r} must be a function of epoch and learning rate"
            raise ConfigError(msg)


FittedKerasModel.estimator_class = KerasEstimator
KerasEstimator.fitted_class = FittedKerasModel
