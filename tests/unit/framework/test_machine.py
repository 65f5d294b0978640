"""The state machine, step by step: facts and events in, commands and facts out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headrace.errors import IllegalTransitionError, PlanError
from headrace.framework.failure import Failure
from headrace.framework.machine import (
    ALL_FINISH,
    PYTORCH,
    TENSORFLOW,
    ArmDeadline,
    DeadlineName,
    FailJob,
    FinishJob,
    GatherDeadlineReached,
    JobMachine,
    JobState,
    Machine,
    MasterStarted,
    NodeLost,
    NodeRegistered,
    ProcessFailed,
    ProcessFinished,
    ProcessState,
    ProcessStopped,
    RecoverDeadlineReached,
    RoleFacts,
    RolePolicy,
    StartProcesses,
    StopDeadlineReached,
    StopProcesses,
    StopRequested,
)

BOOM = Failure(kind="user_code", message="ValueError: boom", traceback="Traceback ...")


def registered(
    node: str,
    *,
    of: int,
    attempt: int = 1,
    instance: str = "first",
    process: ProcessState = ProcessState.NONE,
    process_attempt: int | None = None,
    failure: Failure | None = None,
    ending_reason: str | None = None,
) -> NodeRegistered:
    role, _, index = node.rpartition("-")
    return NodeRegistered(
        attempt=attempt,
        node=node,
        instance=instance,
        role=role,
        index=int(index),
        parallelism=of,
        host=f"host-{node}",
        process=process,
        process_attempt=process_attempt,
        failure=failure,
        ending_reason=ending_reason,
    )


def finished(node: str, attempt: int = 1, instance: str = "first") -> ProcessFinished:
    return ProcessFinished(attempt=attempt, node=node, instance=instance)


def stopped(node: str, attempt: int = 1, instance: str = "first") -> ProcessStopped:
    return ProcessStopped(attempt=attempt, node=node, instance=instance)


def failed(
    node: str, attempt: int = 1, instance: str = "first", failure: Failure = BOOM
) -> ProcessFailed:
    return ProcessFailed(attempt=attempt, node=node, instance=instance, failure=failure)


def lost(node: str, attempt: int = 1, instance: str = "first") -> NodeLost:
    return NodeLost(attempt=attempt, node=node, instance=instance, silent_s=12.0, limit_s=10.0)


def gathering(
    machine: Machine = ALL_FINISH,
    *,
    has_input: bool = False,
    max_restarts: int = 3,
    attempt: int = 1,
) -> JobMachine:
    roles = {"worker": RoleFacts(planned_parallelism=2, has_input=has_input)}
    job = machine.initial_job(roles, max_restarts=max_restarts, attempt=attempt)
    at_work = JobMachine(machine, job)
    at_work.handle(MasterStarted(attempt=attempt))
    return at_work


def running(
    machine: Machine = ALL_FINISH,
    *,
    has_input: bool = False,
    max_restarts: int = 3,
    of: int = 2,
) -> JobMachine:
    at_work = gathering(machine, has_input=has_input, max_restarts=max_restarts)
    for index in range(of):
        at_work.handle(registered(f"worker-{index}", of=of))
    return at_work


def test_the_last_registration_starts_every_process_with_the_whole_cluster() -> None:
    at_work = gathering()
    assert at_work.handle(registered("worker-1", of=2)) == []
    assert at_work.handle(registered("worker-0", of=2)) == [
        StartProcesses(
            attempt=1,
            nodes=("worker-1", "worker-0"),
            cluster={"worker": ("host-worker-0", "host-worker-1")},
        )
    ]
    assert at_work.job.state is JobState.RUNNING


def test_the_master_bounds_its_gathering_as_soon_as_it_has_started() -> None:
    job = ALL_FINISH.initial_job({"w": RoleFacts(planned_parallelism=1)}, max_restarts=0)
    commands = JobMachine(ALL_FINISH, job).handle(MasterStarted(attempt=1))
    assert commands == [
        ArmDeadline(attempt=1, name=DeadlineName.GATHER, setting="gather_timeout_s")
    ]


def test_the_number_of_nodes_is_what_they_report_not_what_was_planned() -> None:
    at_work = gathering()  # planned for two
    for index in range(3):
        at_work.handle(registered(f"worker-{index}", of=3))
    assert at_work.job.state is JobState.RUNNING
    assert at_work.job.expected == 3


def test_nodes_that_disagree_about_their_number_fail_the_job() -> None:
    at_work = gathering()
    at_work.handle(registered("worker-0", of=2))
    (command,) = at_work.handle(registered("worker-1", of=3))
    assert isinstance(command, FailJob)
    assert "3 nodes; the others say 2" in command.message


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_missed_gather_deadline_names_the_missing_nodes_and_the_setting(
    attempt: int,
) -> None:
    at_work = gathering(attempt=attempt)
    at_work.handle(registered("worker-1", of=2, attempt=attempt))
    (command,) = at_work.handle(GatherDeadlineReached(attempt=attempt, limit_s=120.0))
    assert isinstance(command, FailJob)
    assert command.is_restartable == (attempt > 1), "later ones may have lost a host"
    assert "1 of 2 came, missing worker-0" in command.message
    assert "timeouts.gather_timeout_s" in command.message


def test_a_gather_deadline_after_the_gathering_is_ignored() -> None:
    at_work = running()
    assert at_work.handle(GatherDeadlineReached(attempt=1, limit_s=120.0)) == []
    assert (at_work.job.state, at_work.ignored) == (JobState.RUNNING, 1)


@pytest.mark.parametrize("machine", [ALL_FINISH, PYTORCH], ids=lambda m: m.name)
def test_the_job_finishes_when_every_process_has_finished(machine: Machine) -> None:
    at_work = running(machine)
    assert at_work.handle(finished("worker-0")) == []
    assert at_work.handle(finished("worker-1")) == [
        FinishJob(reason="every process has finished")
    ]
    assert at_work.job.state is JobState.FINISHED


def test_a_failed_process_in_batch_mode_stops_the_others_first() -> None:
    at_work = running()
    assert at_work.handle(failed("worker-0")) == [
        StopProcesses(attempt=1, nodes=("worker-1",)),
        ArmDeadline(attempt=1, name=DeadlineName.RECOVER, setting="stop_timeout_s"),
    ]
    assert at_work.job.state is JobState.RECOVERING
    assert at_work.job.attempt == 1


def test_the_group_starts_again_with_the_next_attempt_when_all_have_stopped() -> None:
    at_work = running()
    at_work.handle(failed("worker-0"))
    (command,) = at_work.handle(stopped("worker-1"))
    assert isinstance(command, StartProcesses)
    assert (command.attempt, command.nodes) == (2, ("worker-0", "worker-1"))
    assert (at_work.job.state, at_work.job.restarts) == (JobState.RUNNING, 1)


def test_two_processes_that_fail_together_restart_the_group_once() -> None:
    at_work = running()
    at_work.handle(failed("worker-0"))
    (command,) = at_work.handle(failed("worker-1"))
    assert isinstance(command, StartProcesses)
    assert (command.attempt, at_work.job.restarts) == (2, 1)


def test_a_late_failure_of_the_previous_attempt_is_ignored() -> None:
    at_work = running()
    at_work.handle(failed("worker-0"))
    at_work.handle(stopped("worker-1"))
    assert at_work.handle(failed("worker-0", attempt=1)) == []
    assert at_work.handle(RecoverDeadlineReached(attempt=1, limit_s=9.0, setting="x")) == []
    assert (at_work.job.state, at_work.ignored) == (JobState.RUNNING, 2)


def test_all_finish_leaves_a_finished_node_finished_through_a_recovery() -> None:
    at_work = running()
    at_work.handle(finished("worker-1"))
    (command,) = at_work.handle(failed("worker-0"))
    assert command == StartProcesses(
        attempt=2,
        nodes=("worker-0",),
        cluster={"worker": ("host-worker-0", "host-worker-1")},
    )
    assert at_work.handle(finished("worker-0", attempt=2)) == [
        FinishJob(reason="every process has finished")
    ]


def test_pytorch_restarts_finished_nodes_too() -> None:
    at_work = running(PYTORCH)
    at_work.handle(finished("worker-1"))
    (command,) = at_work.handle(failed("worker-0"))
    assert isinstance(command, StartProcesses)
    assert command.nodes == ("worker-0", "worker-1")


def test_after_the_last_restart_the_job_fails_for_good_with_the_traceback() -> None:
    at_work = running(max_restarts=1)
    at_work.handle(failed("worker-0"))
    at_work.handle(stopped("worker-1"))
    (command,) = at_work.handle(failed("worker-1", attempt=2))
    assert isinstance(command, FailJob)
    assert not command.is_restartable
    assert "worker-1: ValueError: boom" in command.message
    assert "Traceback ..." in command.message
    assert "restarted 1 times" in command.message
    assert at_work.job.state is JobState.FAILED


def test_a_failed_process_in_stream_mode_fails_the_job_at_once() -> None:
    at_work = running(has_input=True)
    (command,) = at_work.handle(failed("worker-0"))
    assert command == FailJob(node="worker-0", failure=BOOM, is_restartable=True)


@pytest.mark.parametrize("machine", [ALL_FINISH, PYTORCH, TENSORFLOW])
@pytest.mark.parametrize("has_input", [True, False])
def test_of_several_failures_the_one_that_came_first_is_the_cause(
    machine: Machine, has_input: bool
) -> None:
    """Clocks of hosts differ, and a death is known when a node has told of it."""
    at_work = running(machine, has_input=has_input, max_restarts=0)
    (command,) = at_work.handle(failed("worker-1"))
    assert isinstance(command, FailJob)
    assert command.node == "worker-1"
    assert at_work.handle(failed("worker-0")) == []
    assert at_work.handle(lost("worker-0")) == []
    assert at_work.job.reason == "worker-1: ValueError: boom"


@pytest.mark.parametrize("has_input", [True, False])
def test_a_failure_that_no_restart_can_mend_fails_the_job_at_once(has_input: bool) -> None:
    hopeless = Failure(kind="environment", message="No module", is_restartable=False)
    at_work = running(has_input=has_input)
    (command,) = at_work.handle(failed("worker-0", failure=hopeless))
    assert command == FailJob(node="worker-0", failure=hopeless, is_restartable=False)


def test_a_hopeless_failure_during_a_recovery_ends_the_job() -> None:
    hopeless = Failure(kind="environment", message="No module", is_restartable=False)
    at_work = running()
    at_work.handle(failed("worker-0"))
    (command,) = at_work.handle(failed("worker-1", failure=hopeless))
    assert command == FailJob(node="worker-1", failure=hopeless, is_restartable=False)


def test_a_silent_node_in_batch_mode_restarts_the_group_when_it_is_back() -> None:
    at_work = running()
    assert at_work.handle(lost("worker-0")) == [
        StopProcesses(attempt=1, nodes=("worker-1",)),
        ArmDeadline(attempt=1, name=DeadlineName.RECOVER, setting="gather_timeout_s"),
    ]
    assert at_work.handle(stopped("worker-1")) == []
    back = registered("worker-0", of=2, process=ProcessState.RUNNING, process_attempt=1)
    assert at_work.handle(back) == [StopProcesses(attempt=1, nodes=("worker-0",))]
    (command,) = at_work.handle(stopped("worker-0"))
    assert isinstance(command, StartProcesses)
    assert command.attempt == 2


def test_a_silent_node_that_never_returns_fails_the_job_but_flink_may_restart_it() -> None:
    at_work = running()
    at_work.handle(lost("worker-0"))
    deadline = RecoverDeadlineReached(attempt=1, limit_s=120.0, setting="gather_timeout_s")
    (command,) = at_work.handle(deadline)
    assert isinstance(command, FailJob)
    assert command.is_restartable
    assert "worker-0" in command.message
    assert "timeouts.gather_timeout_s" in command.message
    assert "timeouts.heartbeat_timeout_s" in command.message


def test_a_silent_node_in_stream_mode_fails_the_job_at_once() -> None:
    at_work = running(has_input=True)
    (command,) = at_work.handle(lost("worker-0"))
    assert isinstance(command, FailJob)
    assert command.is_restartable
    assert "no heartbeat for 12.0 s" in command.message


def test_the_loss_of_a_node_that_has_finished_is_harmless() -> None:
    at_work = running()
    at_work.handle(finished("worker-0"))
    assert at_work.handle(lost("worker-0")) == []
    assert at_work.handle(finished("worker-1")) == [
        FinishJob(reason="every process has finished")
    ]


def test_a_repeated_registration_of_the_same_node_process_changes_nothing() -> None:
    at_work = running()
    again = registered("worker-0", of=2, process=ProcessState.RUNNING, process_attempt=1)
    before = at_work.job
    assert at_work.handle(again) == []
    assert at_work.job == before


def test_a_second_registration_by_a_new_node_process_restarts_the_group_exactly_once() -> None:
    at_work = running()
    commands = at_work.handle(registered("worker-0", of=2, instance="second"))
    assert commands[0] == StopProcesses(attempt=1, nodes=("worker-1",))
    assert at_work.handle(registered("worker-0", of=2, instance="second")) == []
    (start,) = at_work.handle(stopped("worker-1"))
    assert isinstance(start, StartProcesses)
    again = registered("worker-0", of=2, instance="second", attempt=2)
    assert at_work.handle(again) == []
    assert (at_work.job.attempt, at_work.job.restarts) == (2, 1)


def test_what_a_replaced_node_process_reports_is_void() -> None:
    at_work = running()
    at_work.handle(registered("worker-0", of=2, instance="second"))
    assert at_work.handle(finished("worker-0", instance="first")) == []
    assert at_work.ignored == 1


def test_a_new_node_process_of_a_finished_node_harms_nobody() -> None:
    at_work = running()
    at_work.handle(finished("worker-0"))
    assert at_work.handle(registered("worker-0", of=2, instance="second")) == []
    assert at_work.job.nodes["worker-0"].process is ProcessState.FINISHED


def test_stop_job_ends_every_process_and_the_job_with_success() -> None:
    at_work = running()
    stop = StopRequested(attempt=1, reason="loss is low enough")
    assert at_work.handle(stop) == [
        StopProcesses(
            attempt=1, nodes=("worker-0", "worker-1"), ending_reason="loss is low enough"
        ),
        ArmDeadline(attempt=1, name=DeadlineName.STOP, setting="stop_timeout_s"),
    ]
    at_work.handle(failed("worker-0"))  # how a process ends now does not matter
    assert at_work.handle(stopped("worker-1")) == [FinishJob(reason="loss is low enough")]


def test_a_process_that_does_not_stop_cannot_hold_the_end() -> None:
    at_work = running()
    at_work.handle(StopRequested(attempt=1, reason="enough"))
    (command,) = at_work.handle(StopDeadlineReached(attempt=1, limit_s=30.0))
    assert isinstance(command, FinishJob)
    assert "timeouts.stop_timeout_s" in command.reason


def test_a_restarted_master_leaves_running_processes_alone() -> None:
    at_work = gathering()
    for index in range(2):
        commands = at_work.handle(
            registered(f"worker-{index}", of=2, process=ProcessState.RUNNING, process_attempt=1)
        )
        assert commands == []
    assert (at_work.job.state, at_work.job.attempt) == (JobState.RUNNING, 1)


def test_a_restarted_master_starts_only_what_the_former_one_had_not_reached() -> None:
    at_work = gathering()
    running_one = registered("worker-0", of=2, process=ProcessState.RUNNING, process_attempt=1)
    at_work.handle(running_one)
    (command,) = at_work.handle(registered("worker-1", of=2))
    assert isinstance(command, StartProcesses)
    assert (command.attempt, command.nodes) == (1, ("worker-1",))


def test_a_restarted_master_takes_up_a_newer_attempt_from_the_nodes() -> None:
    at_work = gathering()
    old = registered("worker-0", of=2, process=ProcessState.RUNNING, process_attempt=1)
    at_work.handle(old)
    new = registered("worker-1", of=2, process=ProcessState.RUNNING, process_attempt=2)
    arm, command = at_work.handle(new)
    assert isinstance(arm, ArmDeadline)
    assert isinstance(command, StartProcesses)
    assert (command.attempt, command.nodes) == (2, ("worker-0",))


def test_a_restarted_master_goes_on_with_the_restart_that_it_died_in() -> None:
    at_work = gathering()
    at_work.handle(
        registered("worker-0", of=2, process=ProcessState.STOPPED, process_attempt=1)
    )
    commands = at_work.handle(
        registered("worker-1", of=2, process=ProcessState.RUNNING, process_attempt=1)
    )
    assert commands[0] == StopProcesses(attempt=1, nodes=("worker-1",))
    assert at_work.job.restarts == 0


def test_a_restarted_master_goes_on_with_the_end_that_it_died_in() -> None:
    at_work = gathering()
    ended = registered(
        "worker-0",
        of=2,
        process=ProcessState.STOPPED,
        process_attempt=1,
        ending_reason="enough",
    )
    assert at_work.handle(ended) == [FinishJob(reason="enough")]


def test_a_restarted_master_learns_of_failures_from_the_registration() -> None:
    at_work = gathering()
    at_work.handle(
        registered(
            "worker-0", of=2, process=ProcessState.FAILED, process_attempt=1, failure=BOOM
        )
    )
    assert at_work.job.state is JobState.RECOVERING
    (command,) = at_work.handle(registered("worker-1", of=2))
    assert isinstance(command, StartProcesses)
    assert command.attempt == 2


def test_a_role_that_does_not_decide_is_stopped_when_the_deciding_ones_have_finished() -> None:
    at_work = two_roles(with_ps(RolePolicy(decides_end=False)))
    assert at_work.handle(finished("worker-0"))[0] == StopProcesses(
        attempt=1, nodes=("ps-0",), ending_reason="every deciding process has finished"
    )
    assert at_work.handle(stopped("ps-0")) == [
        FinishJob(reason="every deciding process has finished")
    ]


def test_a_failed_helper_harms_nobody() -> None:
    at_work = two_roles(with_ps(RolePolicy(decides_end=False, is_helper=True)))
    assert at_work.handle(failed("ps-0")) == []
    assert at_work.handle(finished("worker-0")) == [
        FinishJob(reason="every process has finished")
    ]


def test_a_job_in_which_no_role_decides_cannot_be_planned() -> None:
    machine = with_ps(RolePolicy(decides_end=False))
    with pytest.raises(PlanError, match="No role of"):
        machine.initial_job({"ps": RoleFacts(planned_parallelism=1)}, max_restarts=0)


def test_an_event_without_a_row_raises_with_the_history() -> None:
    at_work = running()
    with pytest.raises(IllegalTransitionError, match=r"RUNNING.*history: .*NodeRegistered"):
        at_work.handle(MasterStarted(attempt=1))


def test_an_event_of_an_attempt_that_has_not_begun_is_illegal() -> None:
    with pytest.raises(IllegalTransitionError, match="of attempt 2"):
        running().handle(finished("worker-0", attempt=2))


def with_ps(policy: RolePolicy) -> Machine:
    return replace(
        ALL_FINISH, policy_of=lambda name, _: policy if name == "ps" else RolePolicy()
    )


def two_roles(machine: Machine) -> JobMachine:
    roles = {name: RoleFacts(planned_parallelism=1) for name in ("worker", "ps")}
    at_work = JobMachine(machine, machine.initial_job(roles, max_restarts=0))
    at_work.handle(registered("worker-0", of=1))
    at_work.handle(registered("ps-0", of=1))
    return at_work
