"""What is in a directory of `export_to`, and what is in Flink's checkpoints beside it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyflink.table import StreamTableEnvironment, Table

from headrace.role.state_format import decode_state
from tests.waiting import until

from .test_operator_rows import numbers
from .test_predict import read
from .test_reload import in_ms
from .training_jobs import read_rows

MAGIC = b"HRSTATE\1"
CHECKPOINTS = {
    "execution_checkpointing_interval": "300 ms",
    "execution_checkpointing_tolerable__failed__checkpoints": "1000",
}
ALL_KEPT = {"execution_checkpointing_num__retained": "1000"}
KEEP_EXPORTS = 1_000
SERVED: dict[str, Any] = {
    "keep": ["id"],
    "reload": "path changes",
    "reload_every_s": 0.05,
    "version_column": "version",
}
"""How `predict` follows the exports of its job, for `serve_while_training`."""


def add_endless_numbers(t_env: StreamTableEnvironment) -> None:
    """Register the endless table `numbers`: `id` at random, and padding, so that rows are wide.

    Random, so that checkpoints do not hold what is still to come.
    """
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.min'='0', 'fields.id.max'='9999', "
        "'fields.padding.length'='1000', 'rows-per-second'='300', 'scan.parallelism'='1')"
    )


def ids_in(served: Path, suffix: str = ".pt") -> list[int]:
    """Checkpoints whose models are there, from what can be seen; none without a directory."""
    if not served.exists():
        return []
    names = [each.name for each in served.iterdir() if not each.name.startswith(".")]
    pattern = re.compile(rf"checkpoint-(\d+){re.escape(suffix)}")
    found = (pattern.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def objects_in(checkpoints: Path, checkpoint_id: int) -> dict[str, Any]:
    """What `ctx.checkpointed` has named, in the one state with a model of a checkpoint.

    Args:
        checkpoints: Flink's directory for checkpoints, of one job.
        checkpoint_id: Flink's number.
    """
    (checkpoint,) = checkpoints.glob(f"*/chk-{checkpoint_id}")
    found = []
    for file in checkpoint.iterdir():
        content = file.read_bytes()
        for match in re.finditer(re.escape(MAGIC), content):
            state = decode_state(memoryview(bytearray(content[match.start() :])))
            found += [state["objects"]] if "model" in state["objects"] else []
    (objects,) = found
    return dict(objects)


def rows_to_train_and_to_score(t_env: StreamTableEnvironment) -> tuple[Table, Table]:
    """Even numbers `id`, and odd ones with a feature `x`; some minutes of them."""
    numbers(t_env, 40_000, per_second=200)
    return (
        t_env.sql_query("SELECT id FROM numbers WHERE MOD(id, 2) = 0"),
        t_env.sql_query(
            "SELECT id, CAST(MOD(id, 100) AS FLOAT) AS x FROM numbers WHERE MOD(id, 2) = 1"
        ),
    )


def serve_while_training(
    t_env: StreamTableEnvironment, plan: Any, scored: Table, folder: Path, limit_s: float
) -> list[dict[str, Any]]:
    """Run a job that trains and scores until rows of some versions were scored; stop it then.

    Args:
        t_env: Where both are planned.
        plan: What trains.
        scored: Columns `id`, `y`, `version`.
        folder: For what comes out.
        limit_s: Longest wait for the versions, and for the stop.

    Returns:
        All rows that were scored, in order.
    """
    out = folder / "out"
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT, y FLOAT, version TIMESTAMP_LTZ(3)) WITH "
        f"('connector'='filesystem', 'path'='{out.as_uri()}', 'format'='json', "
        "'sink.rolling-policy.rollover-interval'='200 ms', "
        "'sink.rolling-policy.check-interval'='100 ms')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("sink", scored)
    job = plan.submit(statements)
    ended = job._j_client.getJobExecutionResult()
    used = set[str]()

    def has_used_some() -> bool:  # of what the sink has committed; the scorer may be late
        if ended.isDone():
            job.wait(show_progress=False)  # with its failure
        used.update(row["version"] for row in read_rows(out))
        return len(used) > 4

    until(has_used_some, "versions in use", limit_s, lambda: f"{used}")
    job.stop(folder / "saved", timeout_s=limit_s, show_progress=False)
    return read(out)


def require_rows_of_versions(
    rows: list[dict[str, Any]], served: Path, suffix: str, factor_of: Callable[[Path], float]
) -> None:
    """Every odd number was scored once, by the factor of the version that its row names.

    Args:
        rows: What `serve_while_training` has returned.
        served: Directory of the versions.
        suffix: Of their names.
        factor_of: Reads the factor of a version, a whole number below 2**24.
    """
    assert [row["id"] for row in rows] == list(range(1, 2 * len(rows), 2))
    places = {
        changed_ms(path): path
        for path in served.glob(f"[!.]*{suffix}")
        if not path.is_symlink()
    }
    versions = [version for version, _ in itertools.groupby(row["version"] for row in rows)]
    assert len(versions) > 3
    assert versions == sorted(versions)
    factors = {version: factor_of(places[in_ms(version)]) for version in versions}
    for row in rows:
        assert row["y"] == row["id"] % 100 * factors[row["version"]], row
    in_order = [factors[version] for version in versions]
    assert in_order == sorted(in_order)
    assert in_order[-1] > in_order[0]


def changed_ms(path: Path) -> int:
    """When a file, or of a directory the file that was changed last, was changed."""
    files = [each for each in path.rglob("*") if each.is_file()] if path.is_dir() else [path]
    return max(each.stat().st_mtime_ns for each in files) // 1_000_000
