"""The machine of TensorFlow's roles: who decides, who restarts with whom, who harms nobody."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import IllegalTransitionError, PlanError
from headrace.framework.failure import Failure
from headrace.framework.machine import (
    TENSORFLOW,
    ArmDeadline,
    Command,
    DeadlineName,
    FailJob,
    FinishJob,
    JobMachine,
    JobState,
    MasterStarted,
    NodeLost,
    NodeRegistered,
    ProcessFailed,
    ProcessFinished,
    ProcessState,
    ProcessStopped,
    RecoverDeadlineReached,
    RoleFacts,
    StartProcesses,
    StopDeadlineReached,
    StopProcesses,
)

BOOM = Failure(kind="user_code", message="ValueError: boom")
HOPELESS = Failure(kind="environment", message="No module", is_restartable=False)
PS_MODE = {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1, "tensorboard": 1}
NO_CHIEF = {"worker": 2, "ps": 1, "evaluator": 1}
ALL_REDUCE = {"worker": 2, "tensorboard": 1}


class Group:
    """A machine at work, and what its nodes would say."""

    def __init__(
        self, roles: dict[str, int], *, inputs: tuple[str, ...] = (), max_restarts: int = 2
    ) -> None:
        self.roles = roles
        facts = {
            name: RoleFacts(planned_parallelism=count, has_input=name in inputs)
            for name, count in roles.items()
        }
        self.at_work = JobMachine(
            TENSORFLOW, TENSORFLOW.initial_job(facts, max_restarts=max_restarts)
        )
        self.at_work.handle(MasterStarted(attempt=1))

    @classmethod
    def running(cls, roles: dict[str, int], **fields: object) -> Group:
        group = cls(roles, **fields)  # type: ignore[arg-type]
        for node in group.nodes:
            group.register(node)
        assert group.state is JobState.RUNNING
        return group

    @property
    def nodes(self) -> list[str]:
        return [f"{name}-{i}" for name, count in self.roles.items() for i in range(count)]

    @property
    def state(self) -> JobState:
        return self.at_work.job.state

    @property
    def attempt(self) -> int:
        return self.at_work.job.attempt

    def process(self, node: str) -> tuple[ProcessState, int]:
        facts = self.at_work.job.nodes[node]
        return facts.process, facts.life

    def register(
        self,
        node: str,
        process: ProcessState = ProcessState.NONE,
        *,
        life: int = 0,
        process_attempt: int = 1,
        instance: str = "first",
        failure: Failure | None = None,
    ) -> list[Command]:
        role, _, index = node.rpartition("-")
        return self.at_work.handle(
            NodeRegistered(
                attempt=self.attempt,
                node=node,
                instance=instance,
                role=role,
                index=int(index),
                parallelism=self.roles[role],
                host="host",
                process=process,
                process_attempt=None if process is ProcessState.NONE else process_attempt,
                process_life=life,
                failure=failure,
            )
        )

    def finish(self, node: str) -> list[Command]:
        return self.at_work.handle(ProcessFinished(**self._about(node)))

    def stop(self, *nodes: str) -> list[Command]:
        """Return the commands after the last."""
        return [
            self.at_work.handle(ProcessStopped(**self._about(node))) for node in nodes
        ].pop()

    def fail(
        self, node: str, failure: Failure = BOOM, life: int | None = None
    ) -> list[Command]:
        about = self._about(node)
        if life is not None:
            about["life"] = life
        return self.at_work.handle(ProcessFailed(**about, failure=failure))

    def lose(self, node: str) -> list[Command]:
        return self.at_work.handle(
            NodeLost(
                attempt=self.attempt, node=node, instance="first", silent_s=12.0, limit_s=10.0
            )
        )

    def miss_return(self, node: str) -> list[Command]:
        return self.at_work.handle(
            RecoverDeadlineReached(
                attempt=self.attempt, limit_s=120.0, setting="gather_timeout_s", node=node
            )
        )

    def _about(self, node: str) -> dict[str, Any]:
        life = self.at_work.job.nodes[node].life
        return {"attempt": self.attempt, "life": life, "node": node, "instance": "first"}


def awaits(node: str) -> ArmDeadline:
    """Return the limit on the silence of one node."""
    return ArmDeadline(
        attempt=1, name=DeadlineName.RECOVER, setting="gather_timeout_s", node=node
    )


def started(commands: list[Command]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Attempt, life and nodes of every start."""
    return [(c.attempt, c.life, c.nodes) for c in commands if isinstance(c, StartProcesses)]


def stopped(commands: list[Command]) -> set[str]:
    return {node for c in commands if isinstance(c, StopProcesses) for node in c.nodes}


@pytest.mark.parametrize(
    ("roles", "decider"),
    [(PS_MODE, "chief-0"), (NO_CHIEF, "worker-0"), (ALL_REDUCE, "worker-0")],
    ids=["chief", "worker 0 with a ps", "worker 0 of an all-reduce group"],
)
def test_one_process_decides_in_batch_mode_and_all_others_are_stopped(
    roles: dict[str, int], decider: str
) -> None:
    group = Group.running(roles)
    others = [node for node in group.nodes if node != decider]
    assert stopped(group.finish(decider)) == set(others)
    assert group.state is JobState.STOPPING
    group.fail(others[0])  # how it ends now is no failure
    assert group.stop(*others[1:]) == [FinishJob(reason="every deciding process has finished")]


def test_a_worker_that_finishes_before_the_chief_just_stays_finished() -> None:
    group = Group.running(PS_MODE)
    assert group.finish("worker-0") == []
    assert group.finish("worker-1") == []
    assert group.state is JobState.RUNNING
    assert stopped(group.finish("chief-0")) == {"ps-0", "evaluator-0", "tensorboard-0"}


def test_without_chief_and_worker_every_needed_role_decides() -> None:
    group = Group.running({"reader": 2, "evaluator": 1})
    group.finish("reader-0")
    assert stopped(group.finish("reader-1")) == {"evaluator-0"}


@pytest.mark.parametrize("roles", [{"ps": 1}, {"ps": 1, "evaluator": 1}])
def test_a_job_that_nobody_could_end_is_refused(roles: dict[str, int]) -> None:
    with pytest.raises(PlanError, match="No role of"):
        Group(roles)


def test_in_stream_mode_every_process_with_an_input_must_finish() -> None:
    group = Group.running(PS_MODE, inputs=("worker",))
    assert group.finish("chief-0") == []
    assert group.finish("worker-0") == []
    assert stopped(group.finish("worker-1")) == {"ps-0", "evaluator-0", "tensorboard-0"}


def test_an_evaluator_with_an_input_is_no_helper() -> None:
    group = Group.running({"worker": 1, "evaluator": 1}, inputs=("worker", "evaluator"))
    assert group.finish("worker-0") == []
    (command,) = group.fail("evaluator-0")
    assert isinstance(command, FailJob)


@pytest.mark.parametrize("node", ["chief-0", "worker-1", "ps-0"])
def test_a_failure_in_stream_mode_is_for_flink(node: str) -> None:
    group = Group.running(PS_MODE, inputs=("worker",))
    assert group.fail(node) == [FailJob(node=node, failure=BOOM, is_restartable=True)]


@pytest.mark.parametrize("node", ["chief-0", "worker-1", "ps-0"])
@pytest.mark.parametrize("inputs", [(), ("worker",)], ids=["batch", "stream"])
def test_a_failure_that_no_restart_can_mend_fails_the_job_at_once(
    node: str, inputs: tuple[str, ...]
) -> None:
    group = Group.running(PS_MODE, inputs=inputs)
    assert group.fail(node, HOPELESS) == [
        FailJob(node=node, failure=HOPELESS, is_restartable=False)
    ]


def test_a_failed_worker_beside_a_ps_is_started_again_alone() -> None:
    group = Group.running(PS_MODE)
    assert started(group.fail("worker-1")) == [(1, 1, ("worker-1",))]
    assert group.process("worker-1") == (ProcessState.RUNNING, 1)
    assert group.state is JobState.RUNNING
    assert group.at_work.job.restarts == 0


def test_a_late_or_repeated_report_of_an_earlier_life_is_void() -> None:
    group = Group.running(PS_MODE)
    group.fail("worker-1")
    assert group.fail("worker-1", life=0) == []
    again = group.register("worker-1", ProcessState.FAILED, life=0, failure=BOOM)
    assert again == []
    assert group.process("worker-1") == (ProcessState.RUNNING, 1)
    assert group.at_work.ignored == 1


def test_a_report_of_a_life_that_has_not_begun_is_illegal() -> None:
    with pytest.raises(IllegalTransitionError):
        Group.running(PS_MODE).fail("worker-1", life=1)


def test_a_worker_that_fails_again_and_again_fails_the_job_in_its_name() -> None:
    group = Group.running(PS_MODE, max_restarts=2)
    group.fail("worker-1")
    group.fail("worker-0")  # each has a budget of its own
    group.fail("worker-1")
    (command,) = group.fail("worker-1")
    assert isinstance(command, FailJob)
    assert not command.is_restartable
    assert "worker-1: ValueError: boom" in command.message
    assert "started again 2 times before" in command.message
    assert "`am.max_restarts`" in command.message


@pytest.mark.parametrize("node", ["ps-0", "chief-0"])
def test_a_failed_ps_or_chief_restarts_the_group_in_batch_mode(node: str) -> None:
    group = Group.running(PS_MODE)
    group.fail("worker-1")  # its process is number 1 now
    group.finish("worker-0")
    commands = group.fail(node)
    others = {each for each in group.nodes if each not in (node, "worker-0")}
    assert stopped(commands) == others
    assert [c.life for c in commands if isinstance(c, StopProcesses)] == [0, 1]
    ((attempt, life, nodes),) = started(group.stop(*others))
    assert (attempt, life, set(nodes)) == (2, 0, {*others, node})
    assert group.process("worker-0") == (ProcessState.FINISHED, 0)


def test_a_failed_worker_of_an_all_reduce_group_restarts_every_member() -> None:
    group = Group.running(ALL_REDUCE)
    group.finish("worker-1")
    group.fail("worker-0")
    ((attempt, life, nodes),) = started(group.stop("tensorboard-0"))
    assert (attempt, life, set(nodes)) == (2, 0, set(group.nodes))


def test_the_end_of_the_decider_counts_also_while_the_group_recovers() -> None:
    group = Group.running(PS_MODE)
    group.fail("ps-0")
    commands = group.finish("chief-0")  # it was done before it was told to stop
    assert group.state is JobState.STOPPING
    assert stopped(commands) == {"worker-0", "worker-1", "evaluator-0", "tensorboard-0"}
    (command,) = group.at_work.handle(StopDeadlineReached(attempt=1, limit_s=30.0))
    assert isinstance(command, FinishJob)


@pytest.mark.parametrize("helper", ["evaluator-0", "tensorboard-0"])
@pytest.mark.parametrize("inputs", [(), ("worker",)], ids=["batch", "stream"])
def test_a_failed_helper_is_started_again_alone_and_then_left_failed(
    helper: str, inputs: tuple[str, ...]
) -> None:
    group = Group.running(PS_MODE, inputs=inputs, max_restarts=2)
    assert started(group.fail(helper)) == [(1, 1, (helper,))]
    assert started(group.fail(helper)) == [(1, 2, (helper,))]
    assert group.fail(helper) == []
    assert group.process(helper) == (ProcessState.FAILED, 2)
    assert group.state is JobState.RUNNING


def test_a_helper_that_cannot_be_mended_is_left_failed_at_once() -> None:
    group = Group.running(PS_MODE)
    assert group.fail("tensorboard-0", HOPELESS) == []
    assert group.process("tensorboard-0") == (ProcessState.FAILED, 0)
    assert group.state is JobState.RUNNING


@pytest.mark.parametrize("inputs", [(), ("worker",)], ids=["batch", "stream"])
def test_nobody_waits_for_a_silent_helper(inputs: tuple[str, ...]) -> None:
    group = Group.running(PS_MODE, inputs=inputs)
    assert group.lose("evaluator-0") == []
    assert group.miss_return("evaluator-0") == []
    group.finish("chief-0")
    group.finish("worker-0")
    if inputs:
        group.finish("worker-1")
    ending = {"worker-1", "ps-0", "tensorboard-0"} if not inputs else {"ps-0", "tensorboard-0"}
    (finish,) = group.stop(*ending)
    assert isinstance(finish, FinishJob)


def test_a_silent_helper_does_not_hold_a_restart_of_the_group() -> None:
    group = Group.running(NO_CHIEF)
    group.lose("evaluator-0")
    group.fail("ps-0")
    ((attempt, _, nodes),) = started(group.stop("worker-0", "worker-1"))
    assert (attempt, set(nodes)) == (2, set(group.nodes))


def test_a_helper_that_falls_silent_during_a_restart_does_not_hold_it() -> None:
    group = Group.running(NO_CHIEF)
    group.fail("ps-0")
    group.stop("worker-0", "worker-1")
    ((attempt, _, nodes),) = started(group.lose("evaluator-0"))
    assert (attempt, set(nodes)) == (2, set(group.nodes))


@pytest.mark.parametrize(
    ("process", "life"), [(ProcessState.RUNNING, 0), (ProcessState.FINISHED, 0)]
)
def test_a_silent_worker_beside_a_ps_goes_on_when_it_is_back(
    process: ProcessState, life: int
) -> None:
    group = Group.running(PS_MODE)
    assert group.lose("worker-1") == [awaits("worker-1")]
    assert group.fail("worker-1") == []  # it must register first
    assert group.register("worker-1", process) == []
    assert group.process("worker-1") == (process, life)
    assert group.miss_return("worker-1") == []
    assert group.state is JobState.RUNNING


def test_a_silent_worker_that_comes_back_with_a_failure_is_started_again_alone() -> None:
    group = Group.running(PS_MODE)
    group.lose("worker-1")
    commands = group.register("worker-1", ProcessState.FAILED, failure=BOOM)
    assert started(commands) == [(1, 1, ("worker-1",))]


def test_a_new_node_process_of_a_lone_worker_starts_its_next_process() -> None:
    group = Group.running(PS_MODE)
    group.lose("worker-1")
    commands = group.register("worker-1", instance="second")
    assert started(commands) == [(1, 1, ("worker-1",))]
    assert group.state is JobState.RUNNING


def test_a_worker_that_does_not_come_back_fails_the_job_but_flink_may_restart_it() -> None:
    group = Group.running(PS_MODE)
    group.lose("worker-1")
    (command,) = group.miss_return("worker-1")
    assert isinstance(command, FailJob)
    assert command.is_restartable
    assert "worker-1" in command.message
    assert "timeouts.gather_timeout_s" in command.message


def test_each_silent_worker_has_a_limit_of_its_own_that_nobody_else_moves() -> None:
    group = Group.running({"worker": 3, "ps": 1})
    assert group.lose("worker-1") == [awaits("worker-1")]
    assert group.lose("worker-1") == []  # told again: the limit counts from the first time
    assert group.lose("worker-2") == [awaits("worker-2")]
    group.register("worker-1", ProcessState.RUNNING)
    assert group.miss_return("worker-1") == []
    assert group.lose("worker-1") == [awaits("worker-1")]
    (command,) = group.miss_return("worker-2")
    assert isinstance(command, FailJob)
    assert "worker-2" in command.message


def test_the_limit_of_one_silent_worker_does_not_end_a_restart_of_the_group() -> None:
    group = Group.running(PS_MODE)
    group.lose("worker-1")
    group.fail("ps-0")
    assert group.state is JobState.RECOVERING
    assert group.miss_return("worker-1") == []
    assert group.state is JobState.RECOVERING


@pytest.mark.parametrize("node", ["ps-0", "chief-0"])
def test_a_silent_ps_or_chief_restarts_the_group_when_it_is_back(node: str) -> None:
    group = Group.running(PS_MODE)
    commands = group.lose(node)
    others = {each for each in group.nodes if each != node}
    assert stopped(commands) == others
    assert group.stop(*others) == []
    assert stopped(group.register(node, ProcessState.RUNNING)) == {node}
    assert started(group.stop(node))[0][0] == 2


def test_a_silent_worker_is_waited_for_when_the_group_restarts() -> None:
    group = Group.running(PS_MODE)
    group.lose("worker-1")
    commands = group.fail("ps-0")
    assert (
        ArmDeadline(attempt=1, name=DeadlineName.RECOVER, setting="gather_timeout_s")
        in commands
    )
    assert group.stop(*stopped(commands)) == []
    group.register("worker-1", ProcessState.RUNNING)
    assert started(group.stop("worker-1"))[0][0] == 2


def test_a_silent_worker_does_not_hold_the_end() -> None:
    group = Group.running({"chief": 1, "worker": 1, "ps": 1})
    group.lose("worker-0")
    assert stopped(group.finish("chief-0")) == {"ps-0"}
    (finish,) = group.stop("ps-0")
    assert isinstance(finish, FinishJob)


def test_a_restarted_master_takes_lives_from_the_nodes() -> None:
    group = Group(NO_CHIEF)
    for node in ("ps-0", "evaluator-0", "worker-0"):
        group.register(node, ProcessState.RUNNING)
    assert group.register("worker-1", ProcessState.RUNNING, life=2) == []
    assert group.state is JobState.RUNNING
    (command,) = group.fail("worker-1", life=2)
    assert isinstance(command, FailJob)  # the budget is used up, also for the new master


def test_a_restarted_master_starts_a_worker_that_failed_meanwhile_with_the_rest() -> None:
    group = Group(NO_CHIEF)
    assert group.register("worker-1", ProcessState.FAILED, failure=BOOM) == []
    assert group.register("worker-1", ProcessState.FAILED, failure=BOOM) == []
    for node in ("ps-0", "worker-0"):
        group.register(node, ProcessState.RUNNING)
    commands = group.register("evaluator-0")
    assert started(commands) == [(1, 0, ("evaluator-0",)), (1, 1, ("worker-1",))]


def test_a_restarted_master_ends_the_job_that_its_chief_had_finished() -> None:
    group = Group(NO_CHIEF)
    group.register("worker-0", ProcessState.FINISHED)
    group.register("worker-1", ProcessState.RUNNING)
    group.register("evaluator-0")
    assert stopped(group.register("ps-0", ProcessState.RUNNING)) == {"worker-1", "ps-0"}
    assert group.state is JobState.STOPPING


def test_a_worker_that_has_not_heard_of_its_next_process_is_waited_for_in_a_restart() -> None:
    group = Group.running(NO_CHIEF)
    group.fail("worker-1")  # process 1 is under way to it
    assert "worker-1" in stopped(group.fail("ps-0"))
    assert group.register("worker-1", ProcessState.FAILED, life=0, failure=BOOM) == []
    assert group.process("worker-1") == (ProcessState.RUNNING, 1)
    group.stop("worker-0", "evaluator-0")
    assert started(group.stop("worker-1"))[0][0] == 2
