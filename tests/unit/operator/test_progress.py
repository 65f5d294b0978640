"""The status object and what is shown of it."""

from __future__ import annotations

import io
import json

import msgspec

from headrace.framework.status import JobStatus, NodeStatus
from headrace.operator.progress import Progress

RUNNING = JobStatus(
    state="RUNNING",
    attempt=2,
    restarts=1,
    registered=2,
    expected=2,
    nodes={
        "worker-0": NodeStatus(state="running", rows_in=1000, report={"loss": 0.5}),
        "worker-1": NodeStatus(state="running", rows_in=3000, report={"loss": 0.25}),
    },
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_status_reads_the_masters_json_and_leaves_unknown_fields_out() -> None:
    node = {"state": "running", "rows_in": 1000, "report": {"loss": 0.5}, "colour": "red"}
    text = json.dumps(
        {"state": "RUNNING", "expected": None, "nodes": {"worker-0": node}, "new": 1}
    )
    status = JobStatus.from_json(text)
    assert status.state == "RUNNING"
    assert status.expected is None
    assert status.nodes["worker-0"] == NodeStatus(
        state="running", rows_in=1000, report={"loss": 0.5}
    )


def test_before_the_master_has_spoken_the_job_is_starting() -> None:
    assert JobStatus.from_json("") == JobStatus(state="STARTING")


def test_rows_are_summed_and_reports_averaged_over_the_nodes_that_have_them() -> None:
    assert RUNNING.rows_in == 4000
    assert RUNNING.mean("loss") == 0.375
    assert RUNNING.mean("accuracy") is None


def test_in_a_log_a_line_comes_only_when_it_is_due() -> None:
    now = [0.0]
    log = io.StringIO()
    progress = Progress("delays", stream=log, clock=lambda: now[0], line_every_s=10.0)
    for second in (1.0, 9.9, 10.0, 11.0):
        now[0] = second
        progress.update(RUNNING)
    assert log.getvalue() == "delays: 4,000 rows, 400 rows/s, RUNNING, loss=0.375, restarts=1\n"


def test_what_a_node_serves_is_shown_once_and_at_once() -> None:
    node = NodeStatus(state="registered", url="http://host:6006")
    waiting = JobStatus(state="GATHERING", nodes={"tensorboard-0": node})
    runs = msgspec.structs.replace(node, state="running")
    running = JobStatus(state="RUNNING", nodes={"tensorboard-0": runs})
    log, terminal = io.StringIO(), Terminal()
    for progress in (Progress("delays", stream=log), Progress("delays", stream=terminal)):
        for status in (waiting, running, running):
            progress.update(status)
        progress.close(running)
    assert log.getvalue().startswith("delays: tensorboard-0 serves http://host:6006\n")
    for text in (log.getvalue(), terminal.getvalue()):
        assert text.count("http://host:6006") == 1


def test_on_a_terminal_the_line_is_live() -> None:
    terminal = Terminal()
    progress = Progress("delays", stream=terminal)
    progress.update(RUNNING)
    progress.close(RUNNING)
    assert "delays" in terminal.getvalue()
    assert "4.00k rows" in terminal.getvalue()
    assert "loss=0.375" in terminal.getvalue()


def test_while_gathering_the_nodes_are_counted() -> None:
    log = io.StringIO()
    Progress("delays", stream=log).close(JobStatus(state="GATHERING", registered=1))
    assert "GATHERING, 1/? nodes" in log.getvalue()
