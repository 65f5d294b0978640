"""A fitted model: where it is, how it came about, and what scores with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from headrace.errors import ConfigError
from headrace.estimator.files import (
    HISTORY_FILE,
    copy_file,
    read_history,
    read_parameters,
    write_parameters,
)
from headrace.estimator.history import History
from headrace.inference import Device, Model, OnError, Postprocess, predict

if TYPE_CHECKING:
    from headrace.estimator.base import Estimator

__all__ = ["FittedModel"]

E = TypeVar("E", bound="Estimator[Any]")
_M = TypeVar("_M", bound="FittedModel[Any]")


class FittedModel(ABC, Generic[E]):
    """What `fit` returns; immutable. Frameworks derive from it.

    Attributes:
        estimator: Parameters as they were.
        path: Directory with the model, its parameters and its history.
        history: What each epoch brought.
    """

    estimator_class: ClassVar[type[Estimator[Any]]]
    model_file: ClassVar[str]

    def __init__(self, estimator: E, path: Path, history: History) -> None:
        self.estimator = estimator
        self.path = path
        self.history = history

    @property
    @abstractmethod
    def handle(self) -> Model:
        """The model as `predict` takes it."""

    def transform(
        self,
        rows: Any,
        *,
        keep: Sequence[str] | None = None,
        postprocess: Postprocess | None = None,
        on_error: OnError = "fail",
        error_column: str | None = None,
        parallelism: int | None = None,
        device: Device | None = None,
        environment: Mapping[str, str] | None = None,
        name: str = "transform",
    ) -> Any:
        """Score the rows of a table or stream: `predict` with this model and its features.

        Nothing runs before the job is submitted. The new columns are the estimator's `outputs`.

        Args:
            rows: A Table or DataStream, insert-only, with the columns of `features`.
            keep: Columns of `rows` that pass through, before the new ones; None: all of them.
            postprocess: Function of what the model returned and the columns of the batch, as
                arrays by name, that makes the new columns; see `predict`.
            on_error: What becomes of a row that cannot be scored: "fail" fails the job, "null"
                makes its new columns NULL, "side_output" returns it apart, as with `predict`.
            error_column: Name of the STRING column that says why a row has no scores.
            parallelism: How many workers, at least 1; None: the default parallelism of the
                environment.
            device: As with `predict`; None: that of the estimator, "auto" where it has none.
            environment: Environment variables of the workers; None: those of the estimator.
            name: Name of the operator: each one of a job needs its own.

        Returns:
            The rows with their scores, a Table or DataStream as `rows` is; with "side_output"
            a pair, the rows without scores second.

        Raises:
            ConfigError: A setting cannot work.
            PlanError: The job cannot be planned like this.
        """
        from headrace.operator.schema import float_column

        outputs = self.estimator.outputs
        return predict(
            rows,
            self.handle,
            outputs=float_column("prediction") if outputs is None else outputs,
            inputs=self.estimator.features,
            keep=keep,
            postprocess=postprocess,
            batch_rows=self.estimator.batch_rows,
            on_error=on_error,
            error_column=error_column,
            parallelism=parallelism,
            device=device or self.estimator.device,
            environment=self.estimator.environment if environment is None else environment,
            name=name,
        )

    def save(self, path: str | Path) -> None:
        """Write model, parameters and history into a directory, which is made if missing.

        The weights are in the framework's own format, the parameters in that of
        `Estimator.save`. Files that are there are replaced one by one, each in one step.

        Raises:
            ConfigError: A parameter cannot be pickled; the text has its name.
            OSError: A file cannot be read here, or written there.
        """
        place = Path(path)
        for file in (self.model_file, HISTORY_FILE):
            copy_file(self.path / file, place / file)
        write_parameters(place, self.estimator)

    @classmethod
    def load(cls: type[_M], path: str | Path) -> _M:
        """Return the fitted model that is in a directory, which it goes on to use.

        Loading runs code that the file of the parameters contains: load only what you trust.

        Raises:
            ConfigError: There is none, or it cannot be read here.
        """
        place = Path(path).absolute()
        kind, parameters = read_parameters(place, cls.estimator_class)
        missing = [
            file for file in (cls.model_file, HISTORY_FILE) if not (place / file).exists()
        ]
        if missing:
            msg = (
                f"{place} has the parameters of a {kind.__name__} and no {', '.join(missing)}: "
                f"nothing was trained there. Load it with {kind.__name__}.load, and fit it"
            )
            raise ConfigError(msg)
        estimator: Any = kind(**parameters)
        return cls(estimator, place, read_history(place))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.estimator!r}, path={str(self.path)!r})"
