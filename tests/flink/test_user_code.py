"""User code that misbehaves in real Flink jobs: a bounded end, a cause that says enough.

`tests/faults/framework/test_user_code.py` has many more ways, without Flink around them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import AMConfig, RoleConfig, TimeoutConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, chained_role
from headrace.operator.failure import cause_text
from tests.memory_group import NoMemoryGroupError, memory_group
from tests.waiting import until

from . import user_code as code
from .conftest import MakeEnvironment
from .test_roles import file_sink, numbers, read_json

IMPATIENT = TimeoutConfig(stop_grace_s=0.5, stop_timeout_s=5)
_LONGEST_CAUSE = 250_000


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (code.raises, ["ValueError: worker cannot learn", "KeyError: 'no such key'", "code 1"]),
        (code.exits_at_once, ["exit code 7"]),
        (code.is_killed, ["SIGKILL", "memory ran out"]),
        (code.raises_a_huge_message, ["ValueError: begins xxx", "xxx ends", "left out"]),
        (code.blocks_every_signal_and_raises, ["ValueError: deaf", "exit code 1"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_cause_names_node_end_and_last_output(
    make_t_env: MakeEnvironment, entry: code.Entry, says: list[str]
) -> None:
    cause = cause_of_failure(make_t_env, entry)
    for each in ["worker-1", "last words of worker-1", *says]:
        assert each in cause
    assert len(cause) < _LONGEST_CAUSE


def test_a_process_that_the_kernel_ends_for_its_memory_is_told_so(
    make_t_env: MakeEnvironment, small_group: Path
) -> None:
    cause = cause_of_failure(make_t_env, code.runs_out_of_memory, group=str(small_group))
    for each in ["worker-1", "SIGKILL", "memory ran out", "last words of worker-1"]:
        assert each in cause


@pytest.mark.parametrize(
    ("entry", "end"),
    [
        (code.exits_at_once, "exit code 7"),
        (code.is_killed, "SIGKILL"),
        (code.raises, "exit code 1"),
    ],
)
def test_a_role_without_master_says_as_much(
    t_env: StreamTableEnvironment, entry: code.Entry, end: str
) -> None:
    def speaks(ctx: Any) -> None:
        code.say(f"last words of {ctx.role}-{ctx.index}")
        entry(ctx)

    scored = chained_role(
        "score",
        RoleConfig(entry=speaks),
        input=numbers(t_env, 10),
        output={"id": DataTypes.BIGINT()},
        timeouts=IMPATIENT,
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE nowhere (id BIGINT) WITH ('connector'='blackhole')"
    )
    with pytest.raises(Py4JJavaError) as caught:
        scored.execute_insert("nowhere").wait()
    cause = cause_text(caught.value)
    for each in ["score-0", "last words of score-0", end]:
        assert each in cause


def test_what_harms_nobody_ends_with_success_and_every_row(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    before = [
        code.closes_its_output,
        code.leaves_a_fork,
        code.uses_its_context_in_a_fork,
        code.uses_pools,
        code.changes_where_it_is,
        code.ignores_sigterm,
        code.prints_a_lot,
    ]
    after = [code.exits_with_success, code.leaves_threads, code.returns_twice]
    cluster = Cluster(t_env, name="harmless")
    cluster.add_am_role(AMConfig(timeouts=replace(IMPATIENT, stop_timeout_s=2)))
    rows = numbers(t_env, 1000)
    out = []
    for entry in before + after:
        config = RoleConfig(entry=code.Reads(entry, is_before=entry in before))
        output = {"id": DataTypes.BIGINT(), "role": DataTypes.STRING()}
        out.append(cluster.add_role(entry.__name__, config, input=rows, output=output))
    file_sink(t_env, tmp_path / "out", "id BIGINT, role STRING")
    statements = t_env.create_statement_set()
    for table in out:
        assert isinstance(table, Table)
        statements.add_insert("results", table)
    status = cluster.submit(statements).wait(timeout_s=100, show_progress=False).status
    assert (status.state, status.attempt) == ("FINISHED", 1)
    for entry in before + after:
        assert status.nodes[f"{entry.__name__}-0"].report["rows"] == 1000
    assert status.nodes["uses_its_context_in_a_fork-0"].report["refused"] == 4
    got = Counter((row["role"], row["id"]) for row in read_json(tmp_path / "out"))
    assert got == {(e.__name__, i): 1 for e in before + after for i in range(1, 1001)}


def test_cancel_of_a_process_that_is_deaf_to_sigterm_ends_within_5_s(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    mark = tmp_path / "runs"
    cluster = Cluster(t_env, name="deaf")
    cluster.add_am_role()
    worker = RoleConfig(entry=code.waits_deaf_to_sigterm, options={"mark": str(mark)})
    cluster.add_role("worker", worker)
    job = cluster.submit()
    until(mark.exists)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30, show_progress=False)
    assert time.monotonic() - started_at < 5


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A control group that a process can join; needs the rights to make one."""
    with ExitStack() as stack:
        try:
            group = stack.enter_context(memory_group(tmp_path.name))
        except NoMemoryGroupError as exc:
            pytest.skip(str(exc))
        yield group


def cause_of_failure(make_t_env: MakeEnvironment, entry: code.Entry, **options: str) -> str:
    """Run `entry` in the second of two workers; return the cause of the job's failure."""
    t_env = make_t_env(2)
    cluster = Cluster(t_env, name="misbehaves")
    cluster.add_am_role(AMConfig(timeouts=IMPATIENT))
    cluster.add_role(
        "worker",
        RoleConfig(entry=code.SecondWorker(entry), parallelism=2, options=options),
        input=numbers(t_env, 1000),
    )
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=60, show_progress=False)
    return caught.value.cause
