"""The estimator: parameters, and a table to train on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, cast

from headrace._counts import require_count
from headrace.errors import ConfigError, PlanError
from headrace.estimator.columns import needed_columns
from headrace.estimator.early_stopping import EarlyStopping
from headrace.estimator.files import (
    FitRecord,
    new_temporary_directory,
    read_history,
    read_parameters,
    write_parameters,
)
from headrace.estimator.fitted import FittedModel
from headrace.estimator.parameters import Parameters
from headrace.estimator.plan import FitPlan
from headrace.inference import Device, Inputs, Source
from headrace.operator.training import TrainingPlan

__all__ = ["Estimator"]

F = TypeVar("F", bound="FittedModel[Any]")
_E = TypeVar("_E", bound="Estimator[Any]")


class Estimator(Parameters, ABC, Generic[F]):
    """Trains a model on a table, by parameters and without a training function.

    Frameworks derive from it. Thread model: one thread.
    """

    fitted_class: ClassVar[type[FittedModel[Any]]]
    features: Inputs
    label: Source
    batch_rows: int
    epochs: int
    workers: int
    early_stopping: EarlyStopping | None
    seed: int
    outputs: Mapping[str, Any] | None
    environment: Mapping[str, str] | None
    device: Device = "auto"

    def fit(
        self,
        table: Any,
        validation: Any = None,
        *,
        model_dir: str | Path | None = None,
        export_to: str | Path | None = None,
        keep_exports: int = 3,
        name: str = "fit",
        timeout_s: float | None = None,
        show_progress: bool = True,
    ) -> F:
        """Train in a Flink job, and wait for its end.

        All sinks that were added to the table's environment before are part of the job, as with
        every job; see `plan_fit` for more of them.

        Args:
            table: What to train on: a Table, insert-only, that ends. With `export_to` and one
                epoch it may be endless; the fit then lasts until somebody stops the job, so
                take `plan_fit`.
            validation: A table with the same columns that is held out: loss and metrics on it
                come with each epoch, and early stopping looks at them. None: there is none.
            model_dir: Directory for the model and its history, which all hosts and this program
                reach by the same path. None: a temporary one, which goes when this program ends
                (`save` what is to stay), on the embedded cluster only.
            export_to: Directory for a model to serve of each checkpoint of Flink's that
                completes during the fit, with a link `latest...` to the newest; see `train` of
                the framework. It is the model as it was trained up to there, in whichever
                epoch: not the best one so far, which the fitted model is where early stopping
                restores it, and not with the averaged weights of an optimizer. When the fit has
                ended nothing is exported any more. None: nothing is.
            keep_exports: How many of them stay, at least 1.
            name: Name of the job.
            timeout_s: Longest wait, in seconds; the job goes on after it. None waits until the
                end.
            show_progress: Whether to show a live line (terminal) or a line each 10 s (log).

        Returns:
            The fitted model.

        Raises:
            ConfigError: A parameter cannot work; or what the fit has saved is not in
                `model_dir` here.
            PlanError: The job cannot be planned like this; with `export_to`, Flink's
                checkpoints are not set.
            JobFailedError: The job failed; the text has the cause.
            JobManagerLostError: As `JobHandle.wait`.
            WaitTimeoutError: `timeout_s` has passed.
            StopError: The job could not be drained, and goes on.
            Py4JJavaError, TableException: As `TrainingPlan.submit`.
        """
        plan = self.plan_fit(
            table,
            validation,
            model_dir=model_dir,
            export_to=export_to,
            keep_exports=keep_exports,
            name=name,
        )
        return plan.submit().wait(timeout_s=timeout_s, show_progress=show_progress)

    def plan_fit(
        self,
        table: Any,
        validation: Any = None,
        *,
        model_dir: str | Path | None = None,
        export_to: str | Path | None = None,
        keep_exports: int = 3,
        name: str = "fit",
    ) -> FitPlan[F]:
        """Plan what `fit` does; nothing runs before `submit`, which may add other sinks.

        The parameters count as they are now. The arguments are those of `fit`. The plan stays
        in the table's environment: without `submit` it is part of its next job.

        Returns:
            The plan.

        Raises:
            ConfigError: A parameter cannot work.
            PlanError: The job cannot be planned like this.

        Example:
            >>> job = estimator.plan_fit(flights).submit(statements)  # doctest: +SKIP
            >>> model = job.wait()  # doctest: +SKIP

            A fit on a stream, which is served meanwhile, and ends with a model:

            >>> job = estimator.plan_fit(clicks, export_to="served").submit()  # doctest: +SKIP
            >>> job.handle.stop("saved")  # doctest: +SKIP
            >>> model = job.wait()  # doctest: +SKIP
        """
        from headrace.operator.held_out import (
            column_types,
            is_embedded,
            require_ends,
            select_columns,
        )

        self._require_parameters()
        if self.early_stopping is not None and validation is None:
            msg = (
                f"early_stopping={self.early_stopping} looks at held-out rows, and there are "
                "none: give fit(table, validation), or early_stopping=None"
            )
            raise PlanError(msg)
        needed = needed_columns(self.features, self.label, column_types(table, "table"))
        rows = select_columns(table, needed)
        if export_to is None:
            require_ends(rows, "table", " with export_to= and epochs=1, or")
        if validation is not None:
            types = column_types(validation, "validation")
            own = [each for each in needed if each in types] or [*types]
            require_ends(select_columns(validation, own), "validation")
        if model_dir is None and not is_embedded(table):
            msg = (
                "model_dir=None is a temporary directory of this machine, which workers of a "
                "cluster may not have. Give one that all hosts and this program reach by the "
                "same path"
            )
            raise PlanError(msg)
        place = Path(model_dir).absolute() if model_dir else new_temporary_directory()
        frozen = type(self)(**self.get_params(deep=False))
        record = FitRecord.of(frozen)
        training = frozen._plan_training(  # noqa: SLF001 - another one of the own class
            rows,
            validation,
            record,
            output_dir=place,
            export_to=export_to,
            keep_exports=keep_exports,
            name=name,
        )

        def open_fitted() -> F:
            fitted: Any = self.fitted_class(frozen, place, read_history(place, record.run_id))
            return cast("F", fitted)

        return FitPlan(training=training, open_fitted=open_fitted)

    def save(self, path: str | Path) -> None:
        """Write the parameters into a directory, which is made if it is missing.

        Nothing is trained. What they are (classes, functions) is written by cloudpickle: what
        lies in an importable module as a reference to it, the rest as it is.

        Raises:
            ConfigError: A parameter cannot be pickled; the text has its name.
            OSError: It cannot be written there.
        """
        write_parameters(Path(path), self)

    @classmethod
    def load(cls: type[_E], path: str | Path) -> _E:
        """Return the estimator that was saved in a directory.

        Loading runs code that the file contains: load only what you trust.

        Raises:
            ConfigError: There is none, or it cannot be read here.
        """
        kind, parameters = read_parameters(Path(path), cls)
        return cast("_E", kind(**parameters))

    @abstractmethod
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
        """Plan the job."""

    def _require_parameters(self) -> None:
        """Raise a `ConfigError` if a parameter cannot work; frameworks look at theirs too."""
        for count in ("batch_rows", "epochs", "workers"):
            require_count(count, getattr(self, count))
        require_count("seed", self.seed, least=0)
        stopping: object = self.early_stopping
        if stopping is not None and not isinstance(stopping, EarlyStopping):
            msg = f"early_stopping={stopping!r} must be an EarlyStopping(...), or None"
            raise ConfigError(msg)
        outputs: object = self.outputs
        if outputs is not None and not isinstance(outputs, Mapping):
            msg = (
                f"outputs={outputs!r} must be a mapping of column names to DataTypes, for "
                "example {'prediction': DataTypes.FLOAT()}"
            )
            raise ConfigError(msg)
