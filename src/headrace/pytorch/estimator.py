"""The estimator of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from headrace.config import ExchangeConfig, TimeoutConfig
from headrace.errors import ConfigError
from headrace.estimator import EarlyStopping, Estimator, FitRecord, FittedModel
from headrace.inference import Inputs, Source
from headrace.operator.training import TrainingPlan
from headrace.pytorch.fitting import MODEL_FILE, Fitting, ScheduleEvery
from headrace.pytorch.job import train
from headrace.pytorch.models import TorchModel

__all__ = ["FittedTorchModel", "TorchEstimator"]


class FittedTorchModel(FittedModel["TorchEstimator"]):
    """A module that was trained: it scores tables, and can be saved, loaded and looked at.

    Its weights are a state dict in ``model.pt`` of its directory.
    """

    model_file = MODEL_FILE

    @property
    def handle(self) -> TorchModel:
        """The model as `predict` takes it."""
        return TorchModel(self.path / MODEL_FILE, self.estimator.model)

    def module(self) -> nn.Module:
        """Return a new module with the trained weights, on the CPU, in evaluation mode.

        Raises:
            OSError: The file is gone.
            RuntimeError: `model` of the estimator makes another module than was trained.
        """
        module = self.estimator.model()
        state = torch.load(self.path / MODEL_FILE, map_location="cpu", weights_only=True)
        module.load_state_dict(state)
        return module.eval()


class TorchEstimator(Estimator[FittedTorchModel]):
    """Trains a module on a table.

    The parameters are kept as they are given, and looked at when something is fitted. What is
    callable travels to the workers by cloudpickle, so module-level, nested and `__main__`
    functions all do. Rows are trained on in the order in which Flink brings them.

    Args:
        model: Makes the module, for example its class.
        loss: Function of (outputs, labels) that returns a scalar, the mean over the rows, for
            example ``nn.MSELoss()``. Labels are a tensor (rows,), or (rows, k). Those of the
            outputs' shape, but for a dimension of 1 at its end, come in the outputs' shape and
            type; other integers come as int64.
        optimizer: Makes the optimizer of parameters, for example
            ``functools.partial(torch.optim.Adam, lr=1e-3)``.
        features: What of a row goes into the model; see `headrace.inference.Inputs`.
        label: Column of numbers, (rows,), or of arrays of k, (rows, k); or a list of k columns
            of numbers, which become a float32 matrix (rows, k).
        outputs: Columns that `transform` adds, name to `DataTypes`; None: "prediction", FLOAT.
        batch_rows: Rows per batch of each worker, at least 1; a step takes one of each.
        epochs: Passes over the table, at most; at least 1.
        workers: How many processes train, at least 1.
        schedule: Makes a learning-rate scheduler of the optimizer; None: the rate stays.
            ``ReduceLROnPlateau`` gets the loss on the held-out table, or else of the training.
        schedule_every: Whether it steps after each "epoch" or each "step".
        metrics: Name to a function of (outputs, labels) that returns a scalar, the mean over
            the rows.
        early_stopping: When to stop before; None: all epochs are trained.
        seed: Of the first weights, and of what the module draws at random; at least 0.
        device: "auto" takes a GPU where a worker was assigned one; "cuda" must have one; "cpu"
            takes none.
        environment: Environment variables of the workers.
        exchange: Size and pace of the memory queue.
        timeouts: Limits on every wait.
        spare_after_s: When spare processes are started, as for `train`; None: never.

    Example:
        >>> estimator = TorchEstimator(  # doctest: +SKIP
        ...     Delay,
        ...     nn.MSELoss(),
        ...     functools.partial(torch.optim.Adam, lr=1e-3),
        ...     features=["distance", "departs"],
        ...     label="late_min",
        ... )
        >>> model = estimator.fit(flights, held_out)  # doctest: +SKIP
        >>> model.transform(tomorrow).execute().print()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Callable[[], nn.Module],
        loss: Callable[[Any, Any], torch.Tensor],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        *,
        features: Inputs,
        label: Source,
        outputs: Mapping[str, Any] | None = None,
        batch_rows: int = 1024,
        epochs: int = 1,
        workers: int = 1,
        schedule: Callable[[torch.optim.Optimizer], Any] | None = None,
        schedule_every: ScheduleEvery = "epoch",
        metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        early_stopping: EarlyStopping | None = None,
        seed: int = 0,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        environment: Mapping[str, str] | None = None,
        exchange: ExchangeConfig | None = None,
        timeouts: TimeoutConfig | None = None,
        spare_after_s: float | None = 10.0,
    ) -> None:
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.features = features
        self.label = label
        self.outputs = outputs
        self.batch_rows = batch_rows
        self.epochs = epochs
        self.workers = workers
        self.schedule = schedule
        self.schedule_every = schedule_every
        self.metrics = metrics
        self.early_stopping = early_stopping
        self.seed = seed
        self.device = device
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
            device=self.device,
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
            schedule_every=self.schedule_every,
            metrics=dict(self.metrics or {}),
            early_stopping=self.early_stopping,
            seed=self.seed,
            record=record,
        )

    def _require_parameters(self) -> None:
        super()._require_parameters()
        if self.features is None:
            msg = (
                "features=None: a module does not name its inputs. Say which columns go in, "
                "for example features=['distance', 'departs']"
            )
            raise ConfigError(msg)
        _require_maker("model", self.model, nn.Module, "its class")
        _require_maker(
            "optimizer",
            self.optimizer,
            torch.optim.Optimizer,
            "functools.partial(torch.optim.Adam, lr=1e-3)",
        )
        if self.schedule is not None:
            _require_maker(
                "schedule",
                self.schedule,
                torch.optim.lr_scheduler.LRScheduler,
                "functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)",
            )
        if self.schedule_every not in get_args(ScheduleEvery):
            msg = f"schedule_every={self.schedule_every!r} must be 'epoch' or 'step'"
            raise ConfigError(msg)
        _require_function("loss", self.loss)
        given = getattr(self.loss, "keywords", {}).get("reduction")  # of a partial
        reduction = given or getattr(self.loss, "reduction", "mean")
        if reduction != "mean":
            msg = (
                f"loss={self.loss!r} has reduction={reduction!r}: steps and history are of the "
                "mean over the rows. Leave reduction='mean', and scale the learning rate"
            )
            raise ConfigError(msg)
        metrics: object = self.metrics
        if metrics is not None and not isinstance(metrics, Mapping):
            msg = f"metrics={metrics!r} must be a mapping of names to functions"
            raise ConfigError(msg)
        for name, function in (self.metrics or {}).items():
            _require_function(f"metrics[{name!r}]", function)
            if name in ("loss", "rows", "learning_rate") or name.startswith("val_"):
                msg = f"metrics: the name {name!r} is taken by the history; choose another"
                raise ConfigError(msg)
        if self.early_stopping is not None:
            self.early_stopping.require_known(["loss", *(self.metrics or {})])


def _require_maker(parameter: str, given: object, made: type, example: str) -> None:
    if isinstance(given, made) or not callable(given):
        msg = (
            f"{parameter}={given!r} must be what makes it in each worker, for example "
            f"{example}, not the thing itself"
        )
        raise ConfigError(msg)


def _require_function(parameter: str, given: object) -> None:
    is_class = isinstance(given, type)
    if is_class or not callable(given):
        instead = "an instance of it" if is_class else "a function"
        msg = (
            f"{parameter}={given!r} must be called with (outputs, labels) and return a scalar; "
            f"give {instead}"
        )
        raise ConfigError(msg)


FittedTorchModel.estimator_class = TorchEstimator
TorchEstimator.fitted_class = FittedTorchModel
