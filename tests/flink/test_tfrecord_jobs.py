"""TFRecord files in jobs that fail, in jobs with roles, and on a cluster of several JVMs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
from headrace.operator import Cluster, chained_role
from headrace.tensorflow import tfrecord
from tests.waiting import pause_for

from .conftest import MakeEnvironment
from .standalone import standalone_cluster
from .tensorflow_process import Example, TensorFlowProcess

ROWS = 8000
IDS = {"id": DataTypes.BIGINT()}
ENOUGH_MEMORY_FOR_LITTLE = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=64)
COPY = Path(__file__).with_name("programs") / "copy_records.py"


def examples(first: int, count: int) -> list[Example]:
    return [{"id": ["int64", [i]]} for i in range(first, first + count)]


def parts(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("part-*") if path.is_file())


def ids(tensorflow: TensorFlowProcess, folder: Path, compression: str = "") -> list[int]:
    found = tensorflow.read(parts(folder), compression)
    return sorted(each["id"][1][0] for each in found)


def fail_once(folder: Path) -> Any:
    """An entry that passes rows on, and fails once in the middle, after a checkpoint."""
    failed, log = folder / "failed", folder / "log"

    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=50):
            pause_for(0.02)
            with log.open("a") as lines:
                lines.write(f"{os.getpid()} {batch['id'].min()}\n")
            is_half = batch["id"].max() >= ROWS // 2
            if is_half and not failed.exists() and parts(folder / "out"):
                failed.write_text("\n".join(map(str, parts(folder / "out"))))
                msg = "once"
                raise RuntimeError(msg)
            ctx.emit({"id": batch["id"]})

    return entry


@pytest.mark.parametrize("compression", ["NONE", "GZIP"])
def test_each_row_is_read_and_written_once_although_the_job_fails_in_the_middle(
    make_t_env: MakeEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path, compression: Any
) -> None:
    of_tensorflow = "" if compression == "NONE" else compression
    tensorflow.write(tmp_path / "in", examples(0, ROWS), of_tensorflow)
    t_env = make_t_env(
        execution_checkpointing_interval="200 ms",
        execution_checkpointing_dir=f"file://{tmp_path}/saved",
        restart__strategy_type="fixed-delay",
        restart__strategy_fixed__delay_attempts="1",
        restart__strategy_fixed__delay_delay="100 ms",
    )
    config = RoleConfig(entry=fail_once(tmp_path), exchange=ENOUGH_MEMORY_FOR_LITTLE)
    rows = tfrecord.read(t_env, tmp_path / "in", IDS)
    passed = chained_role("pass", config, input=rows, output=IDS)
    assert isinstance(passed, Table)
    tfrecord.write(passed, tmp_path / "out", compression=compression).execute().wait()
    assert ids(tensorflow, tmp_path / "out", of_tensorflow) == [*range(ROWS)]
    finished = [Path(line) for line in (tmp_path / "failed").read_text().split()]
    assert finished
    assert set(finished) <= set(parts(tmp_path / "out")), "what was finished has stayed"
    seen: dict[str, list[int]] = {}
    for line in (tmp_path / "log").read_text().splitlines():
        pid, row = line.split()
        seen.setdefault(pid, []).append(int(row))
    first, second = seen.values()
    assert 0 < second[0] <= first[-1], "the second run began in the file"


def test_a_cluster_reads_and_writes_records_in_one_job(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(4):
        tensorflow.write(tmp_path / f"in/{i}", examples(1000 * i, 1000), "GZIP")

    def double(ctx: Any) -> None:
        for batch in ctx.batches(rows=100):
            ctx.emit({"id": 2 * batch["id"]})

    cluster = Cluster(t_env, name="records")
    cluster.add_am_role()
    rows = tfrecord.read(t_env, tmp_path / "in", IDS)
    config = RoleConfig(entry=double, parallelism=2)
    doubled = cluster.add_role("worker", config, input=rows, output=IDS)
    statements = t_env.create_statement_set()
    statements.add(tfrecord.write(doubled, tmp_path / "doubled"))
    statements.add(tfrecord.write(rows, tmp_path / "copied", compression="ZLIB"))
    assert cluster.submit(statements).wait(timeout_s=100).status.rows_in == 4000
    assert ids(tensorflow, tmp_path / "doubled") == [*range(0, 8000, 2)]
    assert ids(tensorflow, tmp_path / "copied", "ZLIB") == [*range(4000)]


@pytest.mark.long
@pytest.mark.timeout(240)
def test_two_task_managers_read_and_write_records(
    tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(8):
        tensorflow.write(tmp_path / f"in/{i}", examples(100 * i, 100))
    (tmp_path / "cluster").mkdir()
    with standalone_cluster(tmp_path / "cluster") as cluster:
        cluster.python(COPY, tmp_path / "in", tmp_path / "out", "--parallelism", "4")
        cluster.python(COPY, tmp_path / "in", tmp_path / "by_role", "--role")
        jobs = cluster.ask("jobs/overview")["jobs"]
        (job,) = (each["jid"] for each in jobs if each["name"] != "copy")
        vertices = cluster.ask(f"jobs/{job}")["vertices"]
        (reading,) = (each for each in vertices if "Source: " in each["name"])
        subtasks = cluster.ask(f"jobs/{job}/vertices/{reading['id']}")["subtasks"]
        assert len({each["taskmanager-id"] for each in subtasks}) == 2
    assert ids(tensorflow, tmp_path / "out") == [*range(800)]
    assert ids(tensorflow, tmp_path / "by_role") == [*range(800)]
