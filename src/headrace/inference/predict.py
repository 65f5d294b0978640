"""Plans the scoring of rows in a Flink job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from headrace._counts import require_count
from headrace.config import ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.errors import ConfigError, PlanError
from headrace.inference.entry import ScoringEntry
from headrace.inference.inputs import Inputs
from headrace.inference.model import Model
from headrace.inference.scoring_role import Device, scoring_role
from headrace.inference.settings import Postprocess, Reload, ScoringSettings

__all__ = ["OnError", "predict"]

OnError: TypeAlias = Literal["fail", "null", "side_output"]
_SIDE_COLUMN = "error"


def predict(
    rows: Any,
    model: Model,
    *,
    outputs: Mapping[str, Any],
    inputs: Inputs = None,
    keep: Sequence[str] | None = None,
    postprocess: Postprocess | None = None,
    batch_rows: int = 1024,
    linger_ms: int = 0,
    on_error: OnError = "fail",
    error_column: str | None = None,
    parallelism: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    reload: Reload | None = None,
    reload_every_s: float = 10.0,
    version_column: str | None = None,
    name: str = "predict",
    environment: Mapping[str, str] | None = None,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
) -> Any:
    """Score the rows of a table or stream with a trained model.

    Each worker is a process beside its Flink subtask that loads the model once, before the
    first row, and calls it with whole batches. Rows keep their order within a subtask, and with
    Flink's checkpoints on, each is scored exactly once in the output, also where a process is
    killed. Nothing runs before the job is submitted; the rows that come out go into further
    queries and sinks like any others.

    Args:
        rows: A Table or DataStream, insert-only.
        model: The model, for example `TorchModel`, `SavedModel`, `KerasModel` or `PythonModel`.
        outputs: What the model returns, column name to `DataTypes`: a tensor (rows,) or
            (rows, 1) is a column of numbers, (rows, k) an ARRAY. Several are taken in order,
            or by name where the model returns a mapping. Values are cast to the column's type;
            where it cannot hold one, the row cannot be scored.
        inputs: What of the columns goes into the model; see `headrace.inference.Inputs`.
        keep: Columns of `rows` that pass through, before the outputs; None: all of them.
        postprocess: Function of what the model returned and the columns of the batch (a
            mapping of name to tensor, as `inputs` has them) that makes the outputs.
        batch_rows: Most rows in one call of the model, at least 1.
        linger_ms: How long a batch that is not full waits for more rows, in milliseconds. 0: it
            is scored as soon as the worker is free, so batches grow with the load.
        on_error: What becomes of a row that cannot be scored: "fail" fails the job, "null"
            makes its outputs NULL, "side_output" takes it out of the rows and returns it, with
            all its columns, in a table or stream of its own.
        error_column: Name of a STRING column that says why a row has no scores: with "null"
            beside the outputs, None without it; with "side_output" that of the side output,
            None for "error".
        parallelism: How many workers, at least 1; None: the default parallelism of the
            environment.
        threads: With how many threads a worker computes, at least 1; None: the cores of its
            host divided by the number of workers, unless the environment says OMP_NUM_THREADS.
        device: "auto": each worker has a GPU for itself where Flink has assigned GPUs to its
            TaskManager; "cuda": it must have one; "cpu": none.
        reload: "path changes": each worker looks at the model's path, loads a new version
            beside the present one and scores with it from the next batch on; one that cannot be
            used leaves the present one scoring. Where there is none at the start, the first one
            is waited for, at most `timeouts.gather_timeout_s` and
            `timeouts.process_start_timeout_s` together. None: the version at the start scores
            to the end.
        reload_every_s: Seconds between two looks, above 0.
        version_column: Name of a TIMESTAMP_LTZ(3) column that says which version scored a row:
            when its files were changed.
        name: Name of the operator: each `predict` of a job needs its own.
        environment: Environment variables of the worker processes.
        exchange: Size of the memory queue; its `linger_ms` counts in place of the above.
        timeouts: Limits on every wait, in seconds.

    Returns:
        The rows with their scores, a Table or DataStream as `rows` is. With
        `on_error="side_output"` a pair: these, and the rows without scores, with the reason.

    Raises:
        ConfigError: A setting cannot work.
        PlanError: The job cannot be planned like this.

    Source: docs/adr/0103, 0104, 0105.

    Example:
        >>> model = TorchModel("trained/model.pt", Delay)  # doctest: +SKIP
        >>> delays = {"delay": DataTypes.FLOAT()}  # doctest: +SKIP
        >>> predict(flights, model, inputs=["a", "b"], outputs=delays)  # doctest: +SKIP
    """
    from headrace.operator.scoring import plan_scoring

    if not (callable(getattr(model, "load", None)) and hasattr(model, "path")):
        msg = f"model={model!r} must be a handle, for example TorchModel(path)"
        raise PlanError(msg)
    if on_error not in ("fail", "null", "side_output"):
        msg = f"on_error={on_error!r} must be 'fail', 'null' or 'side_output'"
        raise ConfigError(msg)
    has_side = on_error == "side_output"
    if has_side and error_column is None:
        error_column = _SIDE_COLUMN
    queue = exchange or ExchangeConfig(batch_rows=batch_rows, linger_ms=linger_ms)

    added = (*outputs, *filter(None, [error_column, version_column]))

    def role(kept: tuple[str, ...], workers: int) -> RoleConfig:
        there = [name for name in added if has_side and name in kept]
        if there:
            msg = (
                f"on_error='side_output' takes all columns of the rows along, and "
                f"{', '.join(there)} is among them already: give the output, or "
                "`error_column`, another name"
            )
            raise ConfigError(msg)
        settings = ScoringSettings(
            kept=kept,
            outputs=tuple(outputs),
            inputs=inputs,
            postprocess=postprocess,
            batch_rows=batch_rows,
            on_error="fail" if on_error == "fail" else "null",
            error_column=error_column,
            threads=threads,
            reload=reload,
            reload_every_s=reload_every_s,
            version_column=version_column,
        )
        return scoring_role(
            ScoringEntry(model, settings),
            exchange=queue,
            workers=workers,
            device=device,
            environment=environment,
        )

    return plan_scoring(
        rows,
        name=name,
        outputs=outputs,
        error_column=error_column,
        version_column=version_column,
        has_side=has_side,
        keep=keep,
        parallelism=None if parallelism is None else require_count("parallelism", parallelism),
        timeouts=timeouts or TimeoutConfig(),
        role=role,
    )
