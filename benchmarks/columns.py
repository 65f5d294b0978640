"""Rows/s from Flink into Python for columns of many kinds, beside PyFlink's functions.

Variants, each with the same generated rows, one task, all operators chained:

- `ceiling`: source -> discarding sink, without Python.
- `headrace`: source -> role without master, whose process sums up what arrives.
- `pandas UDF`: a vectorised function, in a process of its own.
- `row UDF, process`: a function of one row, in a process of its own.
- `row UDF, thread`: the same inside the JVM (`python.execution-mode: thread`).

A function returns the first number of a row, or the length of what is no number. The rate is
taken by the process's own clock from the row where the warm-up ends to the last one; that of
the ceiling is marginal (`marginal_rate`), and so are those of 16 FLOAT under
`marginal_rows_per_s`, which the bars of this shape are about.
"""

from __future__ import annotations

import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow.compute as pc
from pyflink.table import DataTypes, StreamTableEnvironment
from pyflink.table.udf import udf

from benchmarks import report
from benchmarks.java_probe import build_probe_jar
from benchmarks.pipelines import (
    Column,
    float_columns,
    float_list,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    sql_columns,
    use_worker_processes,
)
from headrace import ExchangeConfig, RoleConfig
from headrace.operator import chained_role

_WARM_UP = 0.4  # part of the rows before the clock starts
_SUM = {
    "arrived": DataTypes.BIGINT(),
    "counted": DataTypes.BIGINT(),
    "total": DataTypes.DOUBLE(),
    "seconds": DataTypes.DOUBLE(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Columns to measure, and how many rows take each kind of variant some seconds.

    Attributes:
        name: What it is.
        columns: The columns.
        rows: For the ceiling and Headrace.
        pandas_rows: For the pandas UDF.
        udf_rows: For the row UDF in a process.
        thread_rows: For the row UDF in a thread.
        exchange: Size of batches and slots in Headrace.
    """

    name: str
    columns: list[Column]
    rows: int
    pandas_rows: int
    udf_rows: int
    thread_rows: int
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scratch:
    """Where a UDF leaves its stamps, and the jar with the function `payload`."""

    stamps: Path
    jar: Path


def _text(length: int) -> list[Column]:
    expression = f"REPEAT(CAST(1000000000 + id AS STRING), {length // 10})"
    return [Column(name="x", type="STRING", expression=expression)]


def _bytes(name: str, length: int, rows: int, udf_rows: int, thread_rows: int) -> Shape:
    """Return a shape of one payload, in batches of 2 MB and slots of 4 MiB."""
    batch_rows = min(4096, 2_000_000 // length)
    return Shape(
        name=f"BYTES of {name}",
        columns=[Column(name="x", type="BYTES", expression=f"payload(id, {length})")],
        rows=rows,
        pandas_rows=udf_rows,
        udf_rows=udf_rows,
        thread_rows=thread_rows,
        exchange=ExchangeConfig(batch_rows=batch_rows, slot_bytes=4 << 20),
    )


def _shape(
    name: str,
    columns: list[Column],
    rows: int,
    pandas_rows: int,
    udf_rows: int,
    thread_rows: int | None = None,
) -> Shape:
    return Shape(
        name=name,
        columns=columns,
        rows=rows,
        pandas_rows=pandas_rows,
        udf_rows=udf_rows,
        thread_rows=thread_rows or udf_rows,
    )


_SIXTEEN = _shape("16 FLOAT", float_columns(16), 6_000_000, 300_000, 100_000)
_SIXTEEN_MARGINAL = _shape("16 FLOAT", float_columns(16), 12_000_000, 500_000, 400_000)
_SHAPES = [
    _shape("1 FLOAT", float_columns(1), 12_000_000, 1_000_000, 250_000),
    _shape("4 FLOAT", float_columns(4), 10_000_000, 600_000, 200_000),
    _SIXTEEN,
    _shape("64 FLOAT", float_columns(64), 1_500_000, 80_000, 30_000),
    _shape("256 FLOAT", float_columns(256), 400_000, 20_000, 8_000),
    _shape("STRING of 10 B", _text(10), 6_000_000, 600_000, 250_000, 1_000_000),
    _shape("STRING of 100 B", _text(100), 3_000_000, 500_000, 200_000, 1_000_000),
    _shape("ARRAY<FLOAT> of 64", [float_list(64)], 1_500_000, 100_000, 40_000),
    _shape("ARRAY<FLOAT> of 784", [float_list(784)], 200_000, 10_000, 4_000),
    _bytes("100 B", 100, 5_000_000, 300_000, 1_000_000),
    _bytes("1 kB", 1_000, 4_000_000, 200_000, 1_000_000),
    _bytes("10 kB", 10_000, 2_000_000, 60_000, 1_000_000),
    _bytes("100 kB", 100_000, 400_000, 8_000, 400_000),
]


def run_columns(shapes: list[Shape], repeats: int, marginal: Shape | None) -> dict[str, Any]:
    """Measure every variant with every shape; return rates in rows/s, ratios and bars."""
    with tempfile.TemporaryDirectory(prefix="headrace-columns-") as folder:
        scratch = _Scratch(stamps=Path(folder) / "stamps", jar=build_probe_jar(Path(folder)))
        _ceiling(shapes[0], scratch, shapes[0].rows)  # the JVM loads and compiles Flink
        rates = {
            shape.name: _take_turns(shape.name, _by_own_clock(shape, scratch), repeats)
            for shape in shapes
        }
        marginal_rates = {}
        if marginal is not None:
            turns = _marginal(marginal, scratch)
            marginal_rates = _take_turns(f"{marginal.name}, marginal", turns, repeats)
    medians = {
        name: {variant: median(values) for variant, values in of_shape.items()}
        for name, of_shape in rates.items()
    }
    ratios = {
        name: {variant: rate["headrace"] / other for variant, other in rate.items()}
        for name, rate in medians.items()
    }
    bars = {
        f"{name}: ahead of every PyFlink function": report.at_least(
            min(ratio for variant, ratio in of_shape.items() if "UDF" in variant), 1.0
        )
        for name, of_shape in ratios.items()
    }
    if marginal is not None:
        headrace = median(marginal_rates["headrace"])
        for variant, bar in (("pandas UDF", 2.5), ("row UDF, process", 40.0)):
            ratio = headrace / median(marginal_rates[variant])
            bars[f"{marginal.name}: headrace / {variant}"] = report.at_least(ratio, bar)
    return {
        "repeats": repeats,
        "rows": {
            name: {
                "headrace": shape.rows,
                "pandas UDF": shape.pandas_rows,
                "row UDF, process": shape.udf_rows,
                "row UDF, thread": shape.thread_rows,
            }
            for name, shape in [
                *((shape.name, shape) for shape in shapes),
                *([] if marginal is None else [(f"{marginal.name}, marginal", marginal)]),
            ]
        },
        "rows_per_s": {name: _spreads(of_shape) for name, of_shape in rates.items()},
        "marginal_rows_per_s": _spreads(marginal_rates),
        "headrace_over": ratios,
        "bars": bars,
    }


def _spreads(rates: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    return {variant: report.spread(values) for variant, values in rates.items()}


def _take_turns(
    name: str, variants: dict[str, Callable[[], float]], repeats: int
) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {variant: [] for variant in variants}
    for repeat in range(repeats):
        for variant, measure in variants.items():
            rate = measure()
            rates[variant].append(rate)
            print(f"{name}, repeat {repeat}: {variant}: {rate:,.0f} rows/s", flush=True)
    return rates


def _by_own_clock(shape: Shape, scratch: _Scratch) -> dict[str, Callable[[], float]]:
    def udf_rate(mode: str, rows: int) -> float:
        _udf(shape, scratch, mode, rows)
        counted, seconds = map(float, scratch.stamps.read_text().split())
        return counted / seconds

    return {
        "ceiling": lambda: marginal_rate(
            partial(_ceiling, shape, scratch), shape.rows // 4, shape.rows
        ),
        "headrace": partial(_headrace, shape, scratch),
        "pandas UDF": lambda: udf_rate("pandas", shape.pandas_rows),
        "row UDF, process": lambda: udf_rate("process", shape.udf_rows),
        "row UDF, thread": lambda: udf_rate("thread", shape.thread_rows),
    }


def _marginal(shape: Shape, scratch: _Scratch) -> dict[str, Callable[[], float]]:
    def measure(run: Callable[[int], float], rows: int) -> Callable[[], float]:
        return lambda: marginal_rate(run, rows // 4, 2 * rows)

    return {
        "headrace": measure(lambda rows: _run_role(shape, scratch, rows)[0], shape.rows),
        "pandas UDF": measure(partial(_udf, shape, scratch, "pandas"), shape.pandas_rows),
        "row UDF, process": measure(partial(_udf, shape, scratch, "process"), shape.udf_rows),
        "row UDF, thread": measure(partial(_udf, shape, scratch, "thread"), shape.thread_rows),
    }


def _open_t_env(scratch: _Scratch) -> StreamTableEnvironment:
    t_env = open_t_env()
    t_env.execute_sql(
        "CREATE TEMPORARY FUNCTION payload AS 'org.headrace.benchmarks.Payload' "
        f"USING JAR '{scratch.jar}'"
    )
    return t_env


def _ceiling(shape: Shape, scratch: _Scratch, rows: int) -> float:
    t_env = _open_t_env(scratch)
    table = rows_of(t_env, shape.columns, rows)
    return run_to_nowhere(t_env, table, sql_columns(shape.columns))


def _headrace(shape: Shape, scratch: _Scratch) -> float:
    _, counted, seconds = _run_role(shape, scratch, shape.rows)
    return counted / seconds


def _run_role(shape: Shape, scratch: _Scratch, rows: int) -> tuple[float, int, float]:
    """Return Flink's run time, and the rows behind the warm-up with their seconds."""
    t_env = _open_t_env(scratch)
    table = rows_of(t_env, shape.columns, rows)
    config = RoleConfig(
        entry=_sum_up,
        options={
            "warm_up_rows": int(_WARM_UP * rows),
            "batch_rows": shape.exchange.batch_rows,
        },
        exchange=shape.exchange,
    )
    running = chained_role("sum", config, input=table, output=_SUM).execute()
    with running.collect() as results:
        [(arrived, counted, _, seconds)] = list(results)  # to the end, or the job is cancelled
    assert arrived == rows, (arrived, rows)
    result = running.get_job_client().get_job_execution_result().result()
    return float(result.get_net_runtime()) / 1000.0, counted, seconds


def _sum_up(ctx: Any) -> None:
    """Sum up what arrives; emit the rows behind the warm-up and the seconds they took."""
    warm_up_rows = ctx.options["warm_up_rows"]
    total, rows, rows_at_begin = 0.0, 0, 0
    begin = None
    for batch in ctx.arrow_batches(rows=ctx.options["batch_rows"]):
        total += _sum_of(batch.column(0))
        rows += batch.num_rows
        if begin is None and rows >= warm_up_rows:
            begin, rows_at_begin = time.perf_counter(), rows
    seconds = time.perf_counter() - (begin or 0.0)
    counted = rows - rows_at_begin
    ctx.emit({"arrived": [rows], "counted": [counted], "total": [total], "seconds": [seconds]})


def _sum_of(column: Any) -> float:
    if hasattr(column, "flatten"):  # a list column
        return float(column.flatten().to_numpy().sum())
    if str(column.type) == "float":
        return float(column.to_numpy().sum())
    return float(pc.sum(pc.binary_length(column)).as_py())


def _timed(rows: int, stamps: Path, *, is_number: bool, is_pandas: bool) -> Callable[..., Any]:
    """Return a function of a row that writes rows and seconds behind the warm-up to a file.

    A nested function travels by value: the process need not import this module.
    """
    warm_up_rows = int(_WARM_UP * rows)
    seen = seen_at_begin = 0
    begin: float | None = None

    def evaluate(*columns: Any) -> Any:
        nonlocal seen, seen_at_begin, begin
        first = columns[0]
        seen += len(first) if is_pandas else 1
        if begin is None and seen >= warm_up_rows:
            begin, seen_at_begin = time.perf_counter(), seen
        if seen == rows and begin is not None:
            stamps.write_text(f"{rows - seen_at_begin} {time.perf_counter() - begin}")
        if is_number:
            return first.astype("float64") if is_pandas else first
        return first.map(len).astype("float64") if is_pandas else float(len(first))

    return evaluate


def _udf(shape: Shape, scratch: _Scratch, mode: str, rows: int) -> float:
    t_env = _open_t_env(scratch)
    _set_python(t_env, "thread" if mode == "thread" else "process")
    is_number = shape.columns[0].type == "FLOAT"
    is_pandas = mode == "pandas"
    function = udf(
        _timed(rows, scratch.stamps, is_number=is_number, is_pandas=is_pandas),
        result_type=DataTypes.DOUBLE(),
        func_type="pandas" if is_pandas else "general",
    )
    t_env.create_temporary_function("timed", function)
    t_env.create_temporary_view("features", rows_of(t_env, shape.columns, rows))
    arguments = ", ".join(column.name for column in shape.columns)
    table = t_env.sql_query(f"SELECT timed({arguments}) AS n FROM features")  # noqa: S608
    scratch.stamps.unlink(missing_ok=True)
    return run_to_nowhere(t_env, table, "n DOUBLE")


def _set_python(t_env: StreamTableEnvironment, mode: str) -> None:
    """Make thread mode find what is installed in a virtual environment."""
    config = t_env.get_config()
    config.set("python.execution-mode", mode)
    config.set("python.executable", sys.executable)
    config.set("python.pythonpath", sysconfig.get_path("purelib"))


def _smallest(shape: Shape) -> Shape:
    return _shape(shape.name, shape.columns, 20_000, 4_000, 2_000)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write columns.json."""
    options = report.parse_options("columns", arguments)
    use_worker_processes()
    if options.smoke:
        figures = run_columns([_smallest(_SIXTEEN)], repeats=1, marginal=None)
    else:
        figures = run_columns(_SHAPES, repeats=2, marginal=_SIXTEEN_MARGINAL)
    print(report.write_result("columns", figures, options.results).read_text())


if __name__ == "__main__":
    main()
