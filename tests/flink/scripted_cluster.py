"""Plans clusters of scripted children through the same Java entry as `headrace.Cluster`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

import headrace
from headrace.config import ExchangeConfig, TimeoutConfig
from headrace.operator.environment import open_environment
from headrace.operator.handle import JobHandle

SHORT = TimeoutConfig(
    gather_timeout_s=20, stop_grace_s=0.5, stop_timeout_s=4, checkpoint_hold_timeout_s=2
)
SMALL = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=100)


class ScriptedCluster:
    """One cluster whose master, nodes and processes follow `tests/flink/scripted`.

    Attributes:
        folder: Where the children leave marks.
        name: Name and stem of the uids.
    """

    def __init__(
        self,
        t_env: StreamTableEnvironment,
        folder: Path,
        *,
        am: dict[str, Any] | None,
        timeouts: TimeoutConfig = SHORT,
        max_master_restarts: int = 2,
        is_on_path: bool = True,
        name: str = "scripted",
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.name = name
        self.flink = open_environment(t_env)
        self.flink.apply_table_options()
        self._builder_class = get_gateway().jvm.org.headrace.operator.ClusterBuilder
        path = [str(Path(headrace.__file__).parents[1])]
        if is_on_path:
            path.append(str(Path(__file__).parent))
        self._document = json.dumps(
            {
                "name": name,
                "job_name": "scripted",
                "uid_prefix": name,
                "am_spec": {"dir": str(folder), **(am or {})},
                "timeouts": asdict(timeouts),
                "max_master_restarts": max_master_restarts,
                "offer": "The test offers what it offers.",
                "python_path": path,
                "master_module": "scripted.master",
                "node_module": "scripted.node",
            }
        )
        self._builder: Any = None
        if am is not None:
            j_env = self.flink.env._j_stream_execution_environment
            self._builder = self._builder_class(j_env, self._document, b"")

    def add(
        self,
        *,
        role: str = "worker",
        parallelism: int = 1,
        rows: Table | None = None,
        emits: bool = False,
        **spec: Any,
    ) -> Table | None:
        """Add a role; without a master it is chained. Emits its own input, or nothing."""
        document = json.dumps(
            {
                "role": role,
                "parallelism": parallelism,
                "spec": {"dir": str(self.folder), **spec},
                "exchange": asdict(SMALL),
            }
        )
        j_t_env = self.flink.t_env._j_tenv
        j_rows = j_type = None
        if rows is not None:
            j_rows = self._builder_class.toRowData(j_t_env, rows._j_table)
            j_type = self._builder_class.rowType(rows._j_table)
        j_output = j_type if emits else None
        if self._builder is not None:
            j_stream = self._builder.addRole(document, b"", j_rows, j_type, j_output)
        else:
            j_stream = self._builder_class.addChained(
                j_rows, document, b"", self._document, j_type, j_output
            )
        if not emits:
            return None
        return Table(
            self._builder_class.fromRowData(j_t_env, j_stream, j_type), self.flink.t_env
        )

    def submit(self) -> JobHandle:
        client = self.flink.env.execute_async("scripted")
        return JobHandle(client, job_name="scripted", am_uid=f"{self.name}-am")

    def starts(self, role: str) -> list[dict[str, Any]]:
        """The start lines that children of this role got, in order."""
        found = self.folder.glob(f"start-*-{role}-*")
        ordered = sorted(found, key=lambda path: int(path.name.split("-")[1]))
        return [json.loads(path.read_text()) for path in ordered]

    def controls(self, node: str) -> list[dict[str, Any]]:
        """The `master` lines that a node got."""
        return [json.loads(p.read_text()) for p in self.folder.glob(f"control-{node}-*")]

    def masters_of(self, node: str) -> list[int]:
        """The pids of the masters that a node was told of, in order."""
        path = self.folder / f"heard-{node}"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def counts(self, key: str) -> int:
        """Sum of what the processes that ended by themselves have counted."""
        return sum(json.loads(p.read_text())[key] for p in self.folder.glob("counts-*"))
