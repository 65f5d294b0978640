"""Memory of a real job: master and node processes, and what the JVM holds outside its heap.

One job with a master and a role of one worker that emits every row of 16 FLOAT columns again.
Samples are taken while the rows go through:

- resident size of the master and node processes, and whether they have a library of torch,
  Arrow or NumPy mapped;
- the JVM outside its heap: pages of the memory queue (`/dev/shm/headrace-*`), direct buffers,
  and everything resident that is neither heap nor queue.

What must stay constant is held against a line through the samples of the second half: its
growth over 10 million rows.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes

from benchmarks import report
from benchmarks.pipelines import float_columns, open_t_env, rows_of, sql_columns
from benchmarks.processes import descendants, mapped_files, resident_mb
from headrace import AMConfig, Cluster, JobHandle, JobResult, RoleConfig, TimeoutConfig
from headrace.errors import WaitTimeoutError

_COLUMNS = float_columns(16)
_TYPES = {column.name: DataTypes.FLOAT() for column in _COLUMNS}
_GROWTH_PER_ROWS = 10_000_000
_LIBRARIES = ("/torch/", "/pyarrow/", "/numpy/")
_PROGRAMS = {
    "master": "headrace.framework.master",
    "node": "headrace.framework.node",
    "algorithm process": "headrace.framework.runner",
}


def run_memory(rows: int, every_s: float) -> dict[str, Any]:
    """Run the job and sample; return figures and bars."""
    jvm_pid = int(get_gateway().jvm.java.lang.ProcessHandle.current().pid())
    heap = _heap_addresses(jvm_pid)
    t_env = open_t_env()
    cluster = Cluster(t_env, name="memory")
    cluster.add_am_role(AMConfig(timeouts=TimeoutConfig(heartbeat_every_s=0.2)))
    echoed = cluster.add_role(
        "worker",
        RoleConfig(entry=_echo),
        input=rows_of(t_env, _COLUMNS, rows),
        output=_TYPES,
    )
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE nowhere ({sql_columns(_COLUMNS)}) "
        "WITH ('connector'='blackhole')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("nowhere", echoed)
    job = cluster.submit(statements)
    samples: list[dict[str, float]] = []
    while (result := _result(job, every_s)) is None:
        worker = job.status().nodes.get("worker-0")
        children = _children(jvm_pid)
        if worker is not None and worker.rows_in and len(children) == len(_PROGRAMS):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # at the end
                sample = {"rows": float(worker.rows_in)}
                samples.append(sample | _sample(jvm_pid, heap, children))
    assert result.status.nodes["worker-0"].rows_out == rows, result.status
    assert samples, "the job was over before a sample was taken"
    return _figures(rows, samples)


def _result(job: JobHandle, timeout_s: float) -> JobResult | None:
    try:
        return job.wait(timeout_s=timeout_s, show_progress=False)
    except WaitTimeoutError:
        return None


def _figures(rows: int, samples: list[dict[str, float]]) -> dict[str, Any]:
    sizes = [key for key in samples[0] if key != "rows"]
    half = samples[len(samples) // 2 :]
    growth = {key: _growth(half, key) for key in sizes}
    medians = {key: median(sample[key] for sample in half) for key in sizes}
    bars = {
        f"{name}: resident MB": report.at_most(medians[f"{name} MB"], 80.0)
        for name in ("master", "node")
    }
    bars |= {
        f"{name}: libraries of torch, Arrow, NumPy": report.at_most(
            max(sample[f"{name} libraries"] for sample in samples), 0
        )
        for name in ("master", "node")
    }
    bars |= {
        f"{name}: growth, MB per 10 million rows": report.at_most(growth[f"{name} MB"], 1.0)
        for name in ("master", "node")
    }
    outside = ("queue MB", "other MB")
    bars["JVM: growth of all that is not heap, % per 10 million rows"] = report.at_most(
        100 * sum(growth[key] for key in outside) / sum(medians[key] for key in outside), 1.0
    )
    bars["JVM: growth of queue and direct memory, MB per 10 million rows"] = report.at_most(
        growth["queue MB"] + growth["direct MB"], 1.0
    )
    return {
        "rows": rows,
        "samples": len(samples),
        "sizes": {key: report.spread([sample[key] for sample in samples]) for key in sizes},
        "growth_per_10_million_rows": growth,
        "every_sample": samples,
        "bars": bars,
    }


def _growth(samples: list[dict[str, float]], key: str) -> float:
    if len({sample["rows"] for sample in samples}) < 2:
        return 0.0
    line = linear_regression(
        [sample["rows"] for sample in samples], [sample[key] for sample in samples]
    )
    return float(line.slope * _GROWTH_PER_ROWS)


def _echo(ctx: Any) -> None:
    for batch in ctx.arrow_batches(rows=4096):
        ctx.emit(batch)


def _children(jvm_pid: int) -> dict[str, int]:
    """Return the processes of the job that run now, by name."""
    commands = descendants(jvm_pid)
    return {
        name: pid
        for name, module in _PROGRAMS.items()
        for pid, command in commands.items()
        if f"-m {module}" in command
    }


def _sample(jvm_pid: int, heap: range, children: dict[str, int]) -> dict[str, float]:
    sample = _jvm_mb(jvm_pid, heap) | {"direct MB": _direct_mb()}
    for name, pid in children.items():
        files = mapped_files(pid)
        sample[f"{name} MB"] = resident_mb(pid)
        sample[f"{name} libraries"] = float(
            sum(any(library in file for file in files) for library in _LIBRARIES)
        )
    return sample


def _direct_mb() -> float:
    """Return the direct buffers of the JVM, by its own account."""
    jvm = get_gateway().jvm
    beans = jvm.java.lang.management.ManagementFactory.getPlatformMXBeans(
        jvm.java.lang.Class.forName("java.lang.management.BufferPoolMXBean")
    )
    [direct] = [bean for bean in beans if bean.getName() == "direct"]
    return float(direct.getMemoryUsed()) / 1e6


def _heap_addresses(jvm_pid: int) -> range:
    """Return where the heap of the JVM lies."""
    text = subprocess.run(
        ["jcmd", str(jvm_pid), "GC.heap_info"],  # noqa: S607 - of the JDK on the path
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    bounds = [int(each, 16) for each in re.findall(r"0x[0-9a-f]{8,}", text)]
    assert bounds, text
    return range(min(bounds), max(bounds))


def _jvm_mb(jvm_pid: int, heap: range) -> dict[str, float]:
    """Return what of the JVM is resident: the queue's segments, and all but heap and queue."""
    queue_kb = other_kb = 0
    is_queue = is_heap = False
    for line in Path(f"/proc/{jvm_pid}/smaps").read_text().splitlines():
        head = line.split(maxsplit=5)
        if re.fullmatch(r"[0-9a-f]+-[0-9a-f]+", head[0]):
            is_queue = len(head) > 5 and "headrace-" in head[5]
            is_heap = int(head[0].partition("-")[0], 16) in heap
        elif head[0] == "Rss:":
            if is_queue:
                queue_kb += int(head[1])
            elif not is_heap:
                other_kb += int(head[1])
    return {"queue MB": queue_kb * 1024 / 1e6, "other MB": other_kb * 1024 / 1e6}


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("memory", arguments)
    figures = run_memory(2_000_000, 0.05) if options.smoke else run_memory(20_000_000, 0.25)
    print(report.write_result("memory", figures, options.results).read_text())


if __name__ == "__main__":
    main()
