"""`Cluster`: an ML cluster planned as Flink operators."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StatementSet, StreamTableEnvironment, Table

from headrace.config import AMConfig, RoleConfig
from headrace.errors import PlanError
from headrace.operator.checkpoint_place import has_directory
from headrace.operator.drain import Drain
from headrace.operator.environment import open_environment
from headrace.operator.failure import cause_text
from headrace.operator.flink_options import (
    CHECKPOINT_RETENTION,
    RESTART_STRATEGY,
    SAVEPOINT_DIR,
    failure_defaults,
)
from headrace.operator.handle import JobHandle
from headrace.operator.local_checkpoints import LocalCheckpoints
from headrace.operator.offer import lack_text, slot_offer
from headrace.operator.plan import (
    am_payload,
    am_spec,
    checkpoint_dir_of_job,
    cluster_document,
    role_document,
    role_payload,
)
from headrace.operator.recovery import recovery_error
from headrace.operator.retained_checkpoint import RETAINED_ON_FAILURE, RetainedCheckpoint
from headrace.operator.schema import OutputSchema, to_java_row_type
from headrace.operator.streams import input_stream, is_bounded, is_fed_by, output_of

__all__ = ["Cluster"]


class Cluster:
    """Plans an application master and any roles as operators of one Flink job.

    Call `add_am_role` first, then `add_role` once per role, then `submit`. Nothing runs before
    `submit`.

    Thread model: one thread; no method but `submit` talks to a cluster.

    Args:
        environment: A `StreamTableEnvironment` or `StreamExecutionEnvironment`; None makes a
            new one.
        name: Name of the cluster and of the job; part of every operator's uid, so a savepoint
            of the job fits a later plan with the same name and roles.
        checkpoint_dir: Directory for `ctx.checkpoint_path` and `ctx.latest_checkpoint` in batch
            mode, which every host reaches by the same path; this job gets a directory of its
            own in it. None: in the temp directory, on the embedded cluster only.

    Raises:
        PlanError: `name` is empty or has a "/"; `environment` is something else, has no
            DataStream API, or is not in streaming mode; or the package was installed without
            its jar.

    Example:
        >>> cluster = Cluster(t_env, name="delays")  # doctest: +SKIP
        >>> cluster.add_am_role(AMConfig())  # doctest: +SKIP
        >>> worker = RoleConfig(entry=train, parallelism=2)  # doctest: +SKIP
        >>> cluster.add_role("worker", worker, input=features)  # doctest: +SKIP
        >>> cluster.submit().wait()  # doctest: +SKIP
    """

    def __init__(
        self,
        environment: StreamTableEnvironment | StreamExecutionEnvironment | None = None,
        *,
        name: str,
        checkpoint_dir: str | Path | None = None,
    ) -> None:
        if not name or "/" in name:
            msg = f"name={name!r} must not be empty and must not contain '/'"
            raise PlanError(msg)
        self._flink = open_environment(environment)
        self._flink.apply_table_options()
        self._operators_before = self._flink.count_operators()
        self._is_of_streams = isinstance(environment, StreamExecutionEnvironment)
        self._name = name
        self._checkpoint_dir = checkpoint_dir_of_job(
            name, checkpoint_dir, is_embedded=self._flink.is_embedded
        )
        self._uid_prefix = f"headrace-{name}"
        self._am: AMConfig | None = None
        self._j_builder: Any = None
        self._offer = ""
        self._roles: dict[str, RoleConfig] = {}
        self._has_input_by_role: dict[str, bool] = {}
        self._j_output_by_role: dict[str, Any] = {}
        self._has_unbounded_input = False
        self._why_checkpoints: str | None = None
        self._is_submitted = False

    @property
    def has_endless_input(self) -> bool:
        """Whether an input of a role so far has an unbounded source."""
        return self._has_unbounded_input

    def require_checkpoints(self, why: str) -> None:
        """Refuse to submit the job unless it makes checkpoints.

        Args:
            why: What needs them, for the text of the refusal.
        """
        self._why_checkpoints = why

    def withdraw(self) -> None:
        """Take back all that was planned in the environment since this cluster was made."""
        self._flink.forget_operators(self._operators_before)

    def add_am_role(self, config: AMConfig | None = None) -> None:
        """Add the application master; exactly once and before any other role.

        Args:
            config: Its settings; None: `AMConfig()`.

        Raises:
            PlanError: There is one already, its state machine is unknown or unsound, or the
                cluster was submitted.
        """
        self._require_not_submitted()
        if self._am is not None:
            msg = (
                f"cluster {self._name!r} has an AM role already; an ML cluster has exactly one"
            )
            raise PlanError(msg)
        am = config or AMConfig()
        payload = am_payload(am)
        self._offer = slot_offer(self._flink)
        document = cluster_document(
            self._name,
            uid_prefix=self._uid_prefix,
            timeouts=am.timeouts,
            python_path=self._flink.python_path(),
            am_spec=am_spec(self._name, am),
            max_master_restarts=am.max_master_restarts,
            offer=self._offer,
        )
        self._j_builder = self._builder_class(
            self._j_env,
            document,
            payload,
        )
        self._am = am

    def add_role(
        self,
        name: str,
        config: RoleConfig,
        *,
        input: Table | DataStream | None = None,  # noqa: A002 - Flink's word
        output: OutputSchema | None = None,
    ) -> Table | DataStream | None:
        """Add `config.parallelism` nodes of the role `name`.

        Args:
            name: Name of the role, for example "worker".
            config: What the nodes run.
            input: Rows for the nodes, insert-only. None plans the role as a source.
            output: Columns that the nodes emit. None: the role emits nothing.

        Returns:
            What the nodes emit: a Table (a DataStream if the cluster was made from a
            StreamExecutionEnvironment), None without `output`.

        Raises:
            PlanError: No AM role yet, the name is taken, the input is an updating table or
                comes from another role of this cluster, a column has a type that does not
                travel, the entry or the options do not fit the runner, the entry does not
                pickle, or the cluster was submitted.
        """
        self._require_not_submitted()
        if self._am is None:
            msg = (
                f"add_role({name!r}) before add_am_role(): an ML cluster needs its master first"
            )
            raise PlanError(msg)
        if name in self._has_input_by_role or name == "am":
            msg = f"role {name!r} is there already; each name once, 'am' is the master's"
            raise PlanError(msg)
        payload = role_payload(name, config)
        document = role_document(name, config, self._am.timeouts, self._checkpoint_dir)
        j_output = None if output is None else to_java_row_type(output)
        j_input, j_input_type = None, None
        if input is not None:
            j_input, j_input_type = input_stream(self._flink, name, input)
            self._require_from_outside(name, j_input)
            self._has_unbounded_input |= not is_bounded(j_input)
        j_stream = self._call_builder(
            name, "addRole", document, payload, j_input, j_input_type, j_output
        )
        self._roles[name] = config
        self._has_input_by_role[name] = input is not None
        if output is None:
            return None
        self._j_output_by_role[name] = j_stream
        return output_of(self._flink, j_stream, j_output, is_stream=self._is_of_streams)

    def submit(self, statements: StatementSet | None = None) -> JobHandle:
        """Submit one job with every role and every sink of this environment.

        Args:
            statements: A statement set of the same table environment, whose INSERTs join the
                job.

        Returns:
            A handle of the running job.

        Raises:
            PlanError: No role was added, the cluster was submitted already, something in it
                needs Flink's checkpoints (`export_to`), and the job makes none, or Flink cannot
                restore it from `execution.state-recovery.path`.
            Py4JJavaError, TableException: Of py4j and `pyflink.util.exceptions`: Flink cannot
                plan a query, does not take the job, or its cluster cannot be reached. For
                another try plan it anew, in a new environment.

        Source: Flink's `StreamExecutionEnvironment.executeAsync`.
        """
        self._require_not_submitted()
        if self._am is None or not self._has_input_by_role:
            msg = (
                f"cluster {self._name!r} has no roles; call add_am_role() and add_role() first"
            )
            raise PlanError(msg)
        self._flink.apply_table_options()
        if self._why_checkpoints is not None and not self._flink.has_checkpoints:
            msg = (
                f"{self._why_checkpoints}, and this job makes none: set "
                "`execution.checkpointing.interval`, for example to 1 min"
            )
            raise PlanError(msg)
        with ExitStack() as undo:
            self._set_failure_options(undo)
            if statements is not None:
                statements.attach_as_datastream()
            self._bind_parallelism()
            undo.callback(self._builder_class.unbindParallelism, self._j_env)
            retained = self._retain(undo)
            drain = Drain(self._flink, self._name) if self._has_unbounded_input else None
            checkpoints = LocalCheckpoints(self._flink, is_drained=self._has_unbounded_input)
            undo.callback(checkpoints.forget)
            try:
                client = self._flink.env.execute_async(self._name)
            except BaseException as exc:
                checkpoints.close()
                if drain is not None:
                    drain.close()
                refused = recovery_error(self._flink, self._name, exc)
                if refused is not None:
                    raise refused from exc
                raise
        self._is_submitted = True
        return JobHandle(
            client,
            job_name=self._name,
            am_uid=f"{self._uid_prefix}-am",
            drain=drain,
            checkpoints=checkpoints,
            savepoint_dir=self._flink.option(SAVEPOINT_DIR),
            retained=retained,
            lack_of_slots=lack_text(self._roles, self._offer),
            fed_roles=[name for name, is_fed in self._has_input_by_role.items() if is_fed],
        )

    @property
    def _j_env(self) -> Any:
        return self._flink.env._j_stream_execution_environment  # noqa: SLF001 - PyFlink has no public way

    @property
    def _builder_class(self) -> Any:
        return get_gateway().jvm.org.headrace.operator.ClusterBuilder

    def _bind_parallelism(self) -> None:
        """Tell the adaptive scheduler the least that each role needs; others do not look."""
        is_adaptive = (self._flink.option("jobmanager.scheduler") or "").lower() == "adaptive"
        if is_adaptive or not self._flink.is_embedded:
            self._j_builder.bindParallelism(self._j_env)

    def _call_builder(self, name: str, method: str, *arguments: Any) -> Any:
        try:
            return getattr(self._j_builder, method)(*arguments)
        except Exception as exc:
            msg = f"role {name!r} cannot be planned: {cause_text(exc)}"
            raise PlanError(msg) from exc

    def _set_failure_options(self, undo: ExitStack) -> None:
        """Keep what the user has set; `undo` takes back what is set here.

        Flink's default restarts back off to minutes, and its default for checkpoints fails the
        job with the first that is declined or times out.
        """
        assert self._am is not None
        has_rows = any(self._has_input_by_role.values())
        if has_rows and not self._flink.has_checkpoints:
            return
        strategy = self._flink.option(RESTART_STRATEGY)
        defaults = failure_defaults(self._am.max_restarts, has_rows=has_rows, strategy=strategy)
        for key, value in defaults.items():
            if self._flink.set_default(key, value):
                undo.callback(self._flink.remove_option, key)

    def _retain(self, undo: ExitStack) -> RetainedCheckpoint | None:
        """Let the newest checkpoint outlive a job that fails, unless the user has said else."""
        has_rows = any(self._has_input_by_role.values())
        if not has_rows or not has_directory(self._flink, self._name):
            return None
        if self._flink.set_default(CHECKPOINT_RETENTION, RETAINED_ON_FAILURE):
            undo.callback(self._flink.remove_option, CHECKPOINT_RETENTION)
        return RetainedCheckpoint.of(self._flink)

    def _require_from_outside(self, name: str, j_input: Any) -> None:
        for feeder, j_stream in self._j_output_by_role.items():
            if is_fed_by(j_input, j_stream):
                msg = (
                    f"input of role {name!r} comes from role {feeder!r} of the same cluster, "
                    "whose output ends when the whole cluster has ended: each would wait for "
                    "the other's end. Make one of them a chained_role, or both one role"
                )
                raise PlanError(msg)

    def _require_not_submitted(self) -> None:
        if self._is_submitted:
            msg = f"cluster {self._name!r} was submitted; build a new Cluster for the next job"
            raise PlanError(msg)
