"""From the options of a `CREATE MODEL` to what its functions carry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from headrace.config import ExchangeConfig, RoleConfig
from headrace.errors import ConfigError
from headrace.inference import (
    LoadedModel,
    Model,
    PythonModel,
    ScoringEntry,
    ScoringSettings,
    is_uri,
    scoring_role,
)
from headrace.sql.inputs import default_inputs, parse_inputs
from headrace.sql.names import require_absolute, require_package, resolve
from headrace.sql.questions import ModelOptions, ModelQuestion

__all__ = ["SqlScoringEntry", "model_role"]

_FOR = {"path": {"pytorch", "tensorflow", "python"}, "module": {"pytorch"}}
_FOR |= {"signature": {"tensorflow"}, "factory": {"python"}}
_NEEDED = {"path": {"pytorch", "tensorflow"}, "factory": {"python"}}


class SqlScoringEntry(ScoringEntry):
    """Scores with the inputs that `default_inputs` chooses where SQL has chosen none."""

    def settings_for(self, model: LoadedModel, schema: pa.Schema) -> ScoringSettings:
        """Return the settings with inputs."""
        if self.settings.inputs is not None:
            return self.settings
        return replace(self.settings, inputs=default_inputs(model, schema))


def model_role(question: ModelQuestion) -> RoleConfig:
    """Return what the workers of a model run.

    Raises:
        ConfigError: The options cannot work.
    """
    options = question.options
    outputs = {column.name: column.type for column in question.outputs}
    _take_out(outputs, "error-column", options.error_column, "STRING")
    _take_out(outputs, "version-column", options.version_column, "TIMESTAMP_LTZ(3)")
    settings = ScoringSettings(
        kept=(),
        outputs=tuple(outputs),
        inputs=parse_inputs(options.inputs, [column.name for column in question.inputs]),
        batch_rows=options.batch_rows,
        on_error=options.on_error,
        error_column=options.error_column,
        threads=options.threads,
        **_reloading(options.reload_every_ms),
        version_column=options.version_column,
    )
    return scoring_role(
        SqlScoringEntry(_model(options), settings),
        exchange=ExchangeConfig(batch_rows=options.batch_rows, linger_ms=options.linger_ms),
        device=options.device,
    )


def _reloading(every_ms: int | None) -> dict[str, Any]:
    """Return the settings of reloading."""
    if every_ms is None:
        return {}
    if every_ms < 1:
        msg = f"'reload-every' is {every_ms} ms and must be at least 1 ms; without it, never"
        raise ConfigError(msg)
    return {"reload": "path changes", "reload_every_s": every_ms / 1_000}


def _take_out(outputs: dict[str, str], option: str, name: str | None, kind: str) -> None:
    """Leave out of the OUTPUT columns what no model returns."""
    if name is None:
        return
    told = ", ".join(f"{each} {its_type}" for each, its_type in outputs.items())
    if outputs.pop(name, None) != kind:
        msg = f"'{option}' = '{name}' must be a {kind} column of the OUTPUT, which has {told}"
        raise ConfigError(msg)


def _model(options: ModelOptions) -> Model:
    given: dict[str, Any] = {name: getattr(options, name) for name in _FOR}
    for name, value in given.items():
        if value is None and options.framework in _NEEDED.get(name, ()):
            msg = f"'framework' = '{options.framework}' needs the option '{name}'"
            raise ConfigError(msg)
        if value is not None and options.framework not in _FOR[name]:
            framework = f"'framework' = '{options.framework}'"
            msg = f"'{name}' = '{value}' has no meaning with {framework}"
            raise ConfigError(msg)
    if options.path is not None and not is_uri(options.path):
        require_absolute("path", [options.path])
    if options.factory is not None:
        return PythonModel(resolve("factory", options.factory), options.path)
    assert options.path is not None
    if options.framework == "pytorch":
        return _torch_model(options.path, options.module)
    require_package("tensorflow", "tensorflow")
    from headrace.tensorflow import KerasModel, SavedModel

    if not options.path.endswith(".keras"):
        return SavedModel(options.path, options.signature or "serving_default")
    if options.signature is not None:
        msg = f"'signature' = '{options.signature}' has no meaning for a .keras file"
        raise ConfigError(msg)
    return KerasModel(options.path)


def _torch_model(path: str, module: str | None) -> Model:
    require_package("pytorch", "torch")
    from headrace.pytorch import TorchModel

    return TorchModel(path, None if module is None else resolve("module", module))
