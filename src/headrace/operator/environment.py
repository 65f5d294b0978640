"""The Flink side that a cluster is planned into: environments, configuration, defaults."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, TableEnvironment

from headrace.errors import PlanError
from headrace.operator.flink_options import names_of
from headrace.operator.jars import EMBEDDED, add_jars

__all__ = ["FlinkEnvironment", "open_environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlinkEnvironment:
    """Both Flink environments of one program, and its configuration.

    Attributes:
        env: The DataStream environment that the job is submitted from.
        t_env: The table environment over `env`.
        j_configuration: Flink's `Configuration` object of `env`; changes are seen by the job.
        is_embedded: Whether the job runs in a mini-cluster inside this program's JVM.
    """

    env: StreamExecutionEnvironment
    t_env: StreamTableEnvironment
    j_configuration: Any
    is_embedded: bool

    @property
    def has_checkpoints(self) -> bool:
        """Whether the job makes checkpoints, by an option or by `enable_checkpointing`."""
        j_config = self.env._j_stream_execution_environment.getCheckpointConfig()  # noqa: SLF001
        return bool(j_config.isCheckpointingEnabled())

    def option(self, key: str) -> str | None:
        """Return the set value of a Flink option, by an older name too, or None."""
        values = (self.j_configuration.getString(name, None) for name in names_of(key))
        return next((str(value) for value in values if value is not None), None)

    def apply_table_options(self) -> None:
        """Make options that were set on the table environment count for the job.

        Flink itself does so only for jobs that the table environment submits.
        """
        j_options = self.t_env._j_tenv.getConfig().getConfiguration()  # noqa: SLF001
        self.j_configuration.addAll(j_options)
        self.env._j_stream_execution_environment.configure(j_options)  # noqa: SLF001

    def set_default(self, key: str, value: str) -> bool:
        """Set a Flink option unless the user has set it, by an older name too.

        Returns:
            Whether it was set, and so is to be removed behind `submit`: the next job that is
            planned here would take it for the user's.
        """
        if self.option(key) is not None:
            return False
        self.j_configuration.setString(key, value)
        return True

    def remove_option(self, key: str) -> None:
        """Make a Flink option unset, for what is planned from now on."""
        self.j_configuration.removeKey(key)

    def count_operators(self) -> int:
        """Return how many operators and sinks the next job has so far."""
        return int(self._j_operators.size())

    def forget_operators(self, since: int) -> None:
        """Take those out of the next job that came when it had `since` of them already."""
        for _ in range(self.count_operators() - since):
            self._j_operators.pop()

    @property
    def _j_operators(self) -> Any:
        return self.env._j_stream_execution_environment.getTransformations()  # noqa: SLF001

    def python_path(self) -> list[str]:
        """Directories that make this program's modules importable on the same machine.

        Empty for a remote cluster, where headrace must be installed in the interpreter and user
        modules travel by PyFlink's dependency settings.
        """
        if not self.is_embedded or self.option("python.executable") != sys.executable:
            return []
        own = {str(Path(sys.prefix).resolve()), str(Path(sys.base_prefix).resolve())}
        entries = [str(Path(entry or ".").resolve()) for entry in sys.path]
        return [
            e for e in dict.fromkeys(entries) if not any(e.startswith(p + "/") for p in own)
        ]


def open_environment(
    given: StreamTableEnvironment | StreamExecutionEnvironment | None,
) -> FlinkEnvironment:
    """Make a plan's environment from what the user has, or a new streaming one from None.

    Raises:
        PlanError: `given` is a table environment without a DataStream API, or runs in BATCH or
            AUTOMATIC mode.
    """
    if given is None:
        env = StreamExecutionEnvironment.get_execution_environment()
        t_env = StreamTableEnvironment.create(env)
    elif isinstance(given, StreamExecutionEnvironment):
        env = given
        t_env = StreamTableEnvironment.create(env)
    elif isinstance(given, TableEnvironment):
        t_env = _require_data_stream_api(given)
        env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())  # noqa: SLF001 - PyFlink has no public way
    else:
        msg = (
            f"Cluster() got a {type(given).__name__}; it takes a StreamTableEnvironment, a "
            "StreamExecutionEnvironment, or None for a new one"
        )
        raise PlanError(msg)
    j_configuration = (
        get_gateway().jvm.org.apache.flink.python.util.PythonConfigUtil.getEnvironmentConfig(
            env._j_stream_execution_environment  # noqa: SLF001 - PyFlink has no public way
        )
    )
    target = j_configuration.getString("execution.target", "local")
    flink = FlinkEnvironment(
        env=env,
        t_env=t_env,
        j_configuration=j_configuration,
        is_embedded=target in EMBEDDED,
    )
    _require_streaming_mode(flink)
    add_jars(env, t_env, j_configuration)
    return flink


def _require_data_stream_api(t_env: TableEnvironment) -> StreamTableEnvironment:
    name = t_env._j_tenv.getClass().getSimpleName()  # noqa: SLF001 - the Python class does not tell
    if name != "StreamTableEnvironmentImpl":
        msg = (
            f"This table environment ({name}) cannot reach Flink's DataStream API, which roles "
            "are planned in. Create it with `StreamTableEnvironment.create(env)` from a "
            "StreamExecutionEnvironment, or pass None to let Headrace create one."
        )
        raise PlanError(msg)
    if isinstance(t_env, StreamTableEnvironment):
        return t_env
    return StreamTableEnvironment(t_env._j_tenv)  # noqa: SLF001 - same Java object, richer class


def _require_streaming_mode(flink: FlinkEnvironment) -> None:
    modes = {
        flink.option("execution.runtime-mode"),
        flink.t_env.get_config().get("execution.runtime-mode", ""),
    }
    for mode in modes:
        if mode and mode.upper() != "STREAMING":
            msg = (
                f"execution.runtime-mode is {mode}: Flink would schedule one region after "
                "another and never start an ML cluster whole. Use STREAMING; bounded "
                "tables work there too. Note that a regular outer join is then an updating "
                "table: use inner or temporal joins."
            )
            raise PlanError(msg)
