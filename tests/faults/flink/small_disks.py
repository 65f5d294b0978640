"""Jobs that run out of shared memory and of disk; run in a mount namespace of its own.

`python -m tests.faults.flink.small_disks DISK`: /dev/shm has next to no room, DISK is a small
file system. Prints what each job came to, as JSON. Flink itself needs a disk to start, so it
is filled while a job runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

from headrace.config import ExchangeConfig, RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, JobHandle
from tests.faults.flink.sight import files_left
from tests.flink.jvm import make_environment, one_jvm
from tests.waiting import until

ROWS = 200_000
TINY = ExchangeConfig(slots=2, slot_bytes=65_536)
BIG = ExchangeConfig()


def run_job(disk: Path, exchange: ExchangeConfig, *, epochs: int = 1) -> dict[str, Any]:
    """Run a job that adds up its rows; return the sum, or the cause of its failure."""

    def entry(ctx: Any) -> None:
        total = 0
        for batch in ctx.batches(rows=1000, epochs=epochs):
            total += int(batch["id"].sum())
        ctx.report(total=float(total))

    return _outcome(_submit(disk, entry, exchange))


def run_restarted_job(disk: Path, exchange: ExchangeConfig, *, leaves_bytes: int) -> Any:
    """Fill the disk while Flink restarts a job; return the cause of its failure."""
    mark, fill = disk.with_name("failed"), disk / "fill"

    def entry(ctx: Any) -> None:
        mark.touch()
        msg = "now the disk fills"
        raise RuntimeError(msg)

    job = _submit(disk, entry, exchange)
    until(mark.exists, "the first attempt to fail")
    ended = job._j_client.getJobExecutionResult()
    try:
        with fill.open("wb", buffering=0) as file:
            until(lambda: _has_ended(ended, file, leaves_bytes), "the job to end")
        return _outcome(job)
    finally:
        fill.unlink()
        mark.unlink()


def run_filling_job(disk: Path, exchange: ExchangeConfig, *, leaves_bytes: int) -> Any:
    """Run a job of two passes whose entry function fills the disk before the first one."""
    fill = disk / "fill"

    def entry(ctx: Any) -> None:
        import os

        place = os.statvfs(fill.parent)
        fill.write_bytes(bytes(place.f_bavail * place.f_frsize - leaves_bytes))
        for _ in ctx.batches(rows=1000, epochs=2):
            pass

    try:
        return _outcome(_submit(disk, entry, exchange, attempts=0))
    finally:
        fill.unlink()


def _has_ended(ended: Any, file: FileIO, leaves_bytes: int) -> bool:
    """Keep the disk full until the job has ended."""
    place = os.statvfs(file.name)
    free_bytes = place.f_bavail * place.f_frsize
    with contextlib.suppress(OSError):  # somebody else was quicker
        file.write(bytes(max(0, free_bytes - leaves_bytes)))
    return bool(ended.isDone())


def _submit(
    disk: Path, entry: Callable[[Any], None], exchange: ExchangeConfig, attempts: int = 1
) -> JobHandle:
    options = {
        "io.tmp.dirs": str(disk),
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(attempts),
        "restart-strategy.fixed-delay.delay": "2 s",
    }
    t_env = make_environment(options)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        f"'fields.id.kind'='sequence', 'fields.id.start'='1', 'fields.id.end'='{ROWS}', "
        f"'number-of-rows'='{ROWS}', 'rows-per-second'='10000000')"
    )
    cluster = Cluster(t_env, name="small")
    cluster.add_am_role()
    role = RoleConfig(entry=entry, exchange=exchange)
    cluster.add_role("worker", role, input=t_env.from_path("numbers"))
    return cluster.submit()


def _outcome(job: JobHandle) -> dict[str, Any]:
    try:
        result = job.wait(timeout_s=100, show_progress=False)
    except JobFailedError as exc:
        return {"cause": exc.cause}
    return {"total": result.status.nodes["worker-0"].report["total"]}


def _traces(disk: Path) -> list[str]:
    return [path for path in files_left(disk) if path.startswith(str(disk))]


def main(disk: Path) -> None:
    """Run the jobs one after the other in one JVM: none of them may end it."""
    with one_jvm():
        found: dict[str, Any] = {
            "full": run_restarted_job(disk, TINY, leaves_bytes=0),
            "no segments": run_restarted_job(disk, BIG, leaves_bytes=1 << 20),
            "no spool": run_filling_job(disk, TINY, leaves_bytes=1 << 20),
            "files": run_job(disk, BIG, epochs=2),
        }
    found["left"] = _traces(disk)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
