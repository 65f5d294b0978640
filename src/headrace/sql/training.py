"""From the options of a training table to the ML cluster that an INSERT into it makes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.errors import ConfigError
from headrace.operator.training import TrainingJob
from headrace.sql.names import require_absolute, require_package, resolve
from headrace.sql.questions import TrainingQuestion

__all__ = ["training_job"]

_Built = TypeVar("_Built")
_OWN = ("name", "workers", "epochs", "output_dir")  # options of the table itself
_INTERNAL = ("is_stream", "has_held_out")  # of training_job, and not of train
_NAMED = ("chief", "evaluator")  # true, or "package.module:function"


def training_job(question: TrainingQuestion) -> TrainingJob:
    """Return what the INSERT runs.

    Raises:
        ConfigError: The options cannot work.
        PlanError: The cluster cannot be planned like this.
    """
    options = question.options
    if options.output_dir is not None:
        require_absolute("output-dir", [options.output_dir])
    make = _maker(options.framework)
    given = _config(options.config, make)
    for option in _NAMED:
        if isinstance(given.get(option), str):
            given[option] = resolve(f"config.{option}", given[option])
    entry_options = given.pop("options", {})
    settings = {
        **given,
        "name": question.name,
        "workers": options.workers,
        "epochs": options.epochs,
        "output_dir": options.output_dir,
    }
    job = make(resolve("entry", options.entry), **settings)
    roles = {
        name: role if role.entry is None else replace(role, options=entry_options)
        for name, role in job.roles.items()
    }
    return replace(job, roles=roles)


def _maker(framework: str) -> Callable[..., TrainingJob]:
    """Return the function that makes the job of a framework."""
    if framework == "pytorch":
        require_package(framework, "torch")
        from headrace.pytorch.job import training_job as of_torch

        return of_torch
    if framework == "tensorflow":
        require_package(framework, "tensorflow")
        from headrace.tensorflow.job import training_job as of_tensorflow

        return partial(of_tensorflow, is_stream=True)
    return _of_none


def _of_none(
    entry: Callable[..., object],
    *,
    name: str,
    workers: int = 1,
    epochs: int = 1,
    output_dir: str | None = None,
    environment: Mapping[str, str] | None = None,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
    spare_after_s: float | None = 10.0,
) -> TrainingJob:
    """Return workers without a framework: `entry` gets the plain context."""
    if epochs != 1 or output_dir is not None:
        msg = (
            "'epochs' and 'output-dir' have no meaning with 'framework' = 'none': the context "
            "of such workers reads its rows once and saves nothing"
        )
        raise ConfigError(msg)
    worker = RoleConfig(
        entry=entry,
        parallelism=workers,
        environment=environment or {},
        exchange=exchange or ExchangeConfig(),
        spare_after_s=spare_after_s,
    )
    master = AMConfig(timeouts=timeouts or TimeoutConfig())
    return TrainingJob(name=name, master=master, roles={"worker": worker})


def _config(text: str | None, make: Callable[..., TrainingJob]) -> dict[str, Any]:
    """Return the option 'config' as arguments of `make`."""
    if text is None:
        return {}
    try:
        given = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as exc:
        msg = f"'config' = '{text}' must be a JSON object, for example {{\"ps\": 1}}: {exc}"
        raise ConfigError(msg) from exc
    parameters = inspect.signature(make).parameters.values()
    keywords = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    known = sorted({*keywords, "options"} - {*_OWN, *_INTERNAL})
    unknown = sorted(set(given) - set(known))
    if unknown:
        msg = f"'config' has {', '.join(unknown)}; it takes {', '.join(known)}"
        raise ConfigError(msg)
    for name in ("log_dir", "checkpoint_dir", "export_to"):
        if name in given and not Path(str(given[name])).is_absolute():
            require_absolute(f"config.{name}", [str(given[name])])
    if "exchange" in given:
        given["exchange"] = _built("exchange", ExchangeConfig, given["exchange"])
    if "timeouts" in given:
        given["timeouts"] = _built("timeouts", TimeoutConfig, given["timeouts"])
    return given


def _built(name: str, kind: type[_Built], value: Any) -> _Built:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as exc:
        msg = f"'config': {name} = {value!r} does not fit: {exc}"
        raise ConfigError(msg) from exc
