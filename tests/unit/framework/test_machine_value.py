"""A machine as a value: checked, pickled, drawn, replayed."""

from __future__ import annotations

from dataclasses import replace

import cloudpickle
import pytest

from headrace.errors import IllegalTransitionError, PlanError
from headrace.framework.failure import Failure
from headrace.framework.machine import (
    ALL_FINISH,
    PYTORCH,
    Arc,
    Event,
    Job,
    JobMachine,
    JobState,
    Machine,
    MasterStarted,
    NodeLost,
    NodeRegistered,
    ProcessFailed,
    ProcessFinished,
    ProcessStopped,
    RoleFacts,
    Step,
    StopRequested,
    Table,
    decode_log,
    diagram,
    encode_event,
    encode_job,
    ignoring,
    replay,
    shipped_machine,
    validate,
)


def job(machine: Machine = ALL_FINISH) -> Job:
    return machine.initial_job({"worker": RoleFacts(planned_parallelism=2)}, max_restarts=1)


def history() -> list[Event]:
    boom = Failure(kind="user_code", message="ValueError: boom", last_lines=("ä", "b"))
    nodes = [
        NodeRegistered(
            attempt=1,
            node=f"worker-{index}",
            instance="one",
            role="worker",
            index=index,
            parallelism=2,
            host="localhost",
        )
        for index in range(2)
    ]
    return [
        MasterStarted(attempt=1),
        *nodes,
        ProcessFailed(attempt=1, node="worker-0", instance="one", failure=boom),
        ProcessStopped(attempt=1, node="worker-1", instance="one"),
        ProcessFinished(attempt=2, node="worker-0", instance="one"),
        ProcessFinished(attempt=2, node="worker-1", instance="one"),
    ]


@pytest.mark.parametrize("name", ["all_finish", "pytorch", "tensorflow"])
def test_shipped_machines_are_valid(name: str) -> None:
    validate(shipped_machine(name))


def test_an_unknown_name_says_which_machines_there_are() -> None:
    with pytest.raises(PlanError, match=r"'nope'.*all_finish.*pytorch"):
        shipped_machine("nope")


@pytest.mark.parametrize("state", [JobState.GATHERING, JobState.RUNNING, JobState.STOPPING])
@pytest.mark.parametrize("event", [NodeLost, StopRequested])
def test_a_table_without_a_needed_row_is_refused(state: JobState, event: type[Event]) -> None:
    table = {key: arc for key, arc in ALL_FINISH.table.items() if key != (state, event)}
    with pytest.raises(PlanError, match=f"{state.value} has no row for {event.__name__}"):
        validate(replace(ALL_FINISH, table=table))


def test_a_table_with_every_kind_of_fault_is_refused_with_all_of_them() -> None:
    table = {
        key: arc
        for key, arc in ALL_FINISH.table.items()
        if JobState.RECOVERING not in arc.targets
    }
    table[JobState.FINISHED, StopRequested] = Arc(_unused, frozenset({JobState.RUNNING}))
    table[JobState.RUNNING, ProcessStopped] = ignoring("")
    with pytest.raises(PlanError) as caught:
        validate(replace(ALL_FINISH, table=table))
    text = str(caught.value)
    assert "state RECOVERING cannot be reached" in text
    assert "(FINISHED, StopRequested) leaves a terminal state" in text
    assert "(RUNNING, ProcessStopped) ignores its event without a reason" in text


def test_a_handler_that_goes_where_its_row_does_not_say_is_stopped() -> None:
    wrong: Table = {
        (JobState.GATHERING, MasterStarted): Arc(_fails, frozenset({JobState.GATHERING}))
    }
    table = {**ALL_FINISH.table, **wrong}
    at_work = JobMachine(replace(ALL_FINISH, name="mine", table=table), job())
    with pytest.raises(IllegalTransitionError, match=r"with target FAILED.*'mine'"):
        at_work.handle(MasterStarted(attempt=1))
    assert at_work.job.state is JobState.GATHERING


def test_a_machine_with_a_function_of_the_users_travels_by_cloudpickle() -> None:
    def on_stop(facts: Job, event: StopRequested) -> Step:
        return replace(facts, state=JobState.FAILED, reason=event.reason), []

    row: Table = {
        (JobState.GATHERING, StopRequested): Arc(on_stop, frozenset({JobState.FAILED}))
    }
    mine = replace(PYTORCH, name="mine", table={**PYTORCH.table, **row})
    copy = cloudpickle.loads(cloudpickle.dumps(mine))
    at_work = JobMachine(copy, job(copy))
    at_work.handle(StopRequested(attempt=1, reason="because"))
    assert (at_work.job.state, at_work.job.reason) == (JobState.FAILED, "because")
    assert copy.policy_of("worker", {}).restarts_finished


def test_a_saved_log_replays_to_the_same_facts() -> None:
    first = job()
    lines = [encode_job(first), *(encode_event(event) for event in history())]
    start, events = decode_log(lines)
    assert start == first
    assert events == history()
    again = replay(ALL_FINISH, start, events)
    assert again.job == replay(ALL_FINISH, first, history()).job
    assert (again.job.state, again.job.attempt) == (JobState.FINISHED, 2)


def test_the_history_tells_every_step() -> None:
    assert list(replay(ALL_FINISH, job(), history()).history) == [
        "GATHERING --MasterStarted--> GATHERING",
        "GATHERING --NodeRegistered(worker-0)--> GATHERING",
        "GATHERING --NodeRegistered(worker-1)--> RUNNING",
        "RUNNING --ProcessFailed(worker-0)--> RECOVERING",
        "RECOVERING --ProcessStopped(worker-1)--> RUNNING",
        "RUNNING --ProcessFinished(worker-0)--> RUNNING",
        "RUNNING --ProcessFinished(worker-1)--> FINISHED",
    ]


def test_the_diagram_shows_every_change_of_state_of_the_table() -> None:
    drawn = diagram(ALL_FINISH.table)
    assert drawn.startswith("stateDiagram-v2\n    [*] --> GATHERING\n")
    assert "    RUNNING --> RECOVERING: NodeLost, NodeRegistered, ProcessFailed\n" in drawn
    assert "    STOPPING --> FINISHED: " in drawn
    assert drawn.endswith("    FINISHED --> [*]\n    FAILED --> [*]\n")


def _unused(facts: Job, event: Event) -> Step:
    raise AssertionError


def _fails(facts: Job, event: Event) -> Step:
    return replace(facts, state=JobState.FAILED), []
