"""What follows from the facts: the decisions that several handlers share. Pure functions.

Three questions recur and have one function each: `settle` (do the facts as they are now end a
phase?), `on_failure` (what follows from a failed process?), `restart_or_fail` (may the group
start again?).
"""

from __future__ import annotations

from dataclasses import replace

from headrace.framework.failure import Failure
from headrace.framework.machine.commands import (
    ArmDeadline,
    Command,
    DeadlineName,
    FailJob,
    FinishJob,
    StartProcesses,
    StopProcesses,
)
from headrace.framework.machine.facts import Job, JobState, ProcessState
from headrace.framework.machine.table import Step

__all__ = [
    "fail",
    "finish",
    "on_failure",
    "restart_or_fail",
    "settle",
    "stop",
    "stop_processes",
    "without_silent",
]


def settle(job: Job) -> Step:
    """Leave the present phase if the facts say that it is over."""
    if job.state is JobState.GATHERING and job.is_gathered:
        return _open(job)
    if job.state in (JobState.RUNNING, JobState.RECOVERING) and job.is_decided():
        if job.running:
            return stop(job, "every deciding process has finished")
        return finish(job, "every process has finished")
    if job.state is JobState.RECOVERING and job.is_gathered and not job.running:
        return _start_again(job)
    if job.state is JobState.STOPPING and not job.running:
        return finish(job, job.reason or "stopped")
    return job, []


def _open(job: Job) -> Step:
    """Every node is there: start those without a process of this attempt."""
    if any(node.process is ProcessState.STOPPED for node in job.nodes.values()):
        # The former master was restarting the group when it died: go on with that.
        return _restart(job, "the master was lost during a restart of the group", counted=0)
    job = replace(job, state=JobState.RUNNING)
    fresh = tuple(n for n, node in job.nodes.items() if node.process is ProcessState.NONE)
    if job.is_decided() or not fresh:
        return settle(job)
    return _start(job, fresh)


def _start(job: Job, nodes: tuple[str, ...]) -> Step:
    for name in nodes:
        job = job.with_process(name, ProcessState.RUNNING)
    starts: list[Command] = [
        StartProcesses(
            attempt=job.attempt, life=life, nodes=some, cluster=job.cluster, ports=job.ports
        )
        for life, some in _by_life(job, nodes)
    ]
    return job, starts


def stop_processes(
    job: Job, nodes: tuple[str, ...], *, ending_reason: str | None = None
) -> list[Command]:
    """Return what ends the processes of `nodes`."""
    return [
        StopProcesses(attempt=job.attempt, life=life, nodes=some, ending_reason=ending_reason)
        for life, some in _by_life(job, nodes)
    ]


def _by_life(job: Job, nodes: tuple[str, ...]) -> list[tuple[int, tuple[str, ...]]]:
    lives = sorted({job.nodes[name].life for name in nodes})
    return [(life, tuple(n for n in nodes if job.nodes[n].life == life)) for life in lives]


def _start_again(job: Job) -> Step:
    """The old attempt has ended everywhere: open the next one."""
    job = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, reason=None)
    nodes = tuple(name for name in job.nodes if not job.keeps_result(name))
    return _start(job.with_first_lives(nodes), nodes)


def on_failure(job: Job, node: str, failure: Failure) -> Step:
    """A process of the present attempt has failed; `job` has it noted."""
    policy, life = job.policy(node), job.nodes[node].life
    is_recovering = job.state is JobState.RECOVERING  # it will be started with the group
    may_restart_alone = policy.restarts_alone and failure.is_restartable and not is_recovering
    if may_restart_alone and life < job.max_restarts:
        return _restart_alone(job, node)
    if policy.is_helper:
        return settle(job)
    if may_restart_alone:
        note = (
            f"It was started again {life} times before in this attempt, while the others went "
            "on (limit set by `am.max_restarts`); the job fails."
        )
        return _failed(
            job, FailJob(node=node, failure=failure, is_restartable=False, note=note)
        )
    if job.state is JobState.RECOVERING and failure.is_restartable:
        return settle(job)  # a consequence of the failure that is being mended
    return restart_or_fail(job, node, failure)


def _restart_alone(job: Job, node: str) -> Step:
    """Start the next process of one node; while the group gathers, together with all."""
    facts = job.nodes[node]
    job = job.with_node(node, replace(facts, process=ProcessState.NONE, life=facts.life + 1))
    return settle(job) if job.state is JobState.GATHERING else _start(job, (node,))


def restart_or_fail(job: Job, node: str, failure: Failure) -> Step:
    """Restart the group for a failure of `node`, where that is possible and allowed."""
    if not failure.is_restartable:
        return _failed(job, FailJob(node=node, failure=failure, is_restartable=False))
    if not job.is_restartable_in_place:
        return _failed(job, FailJob(node=node, failure=failure, is_restartable=True))
    if job.restarts >= job.max_restarts:
        note = (
            f"The group was restarted {job.restarts} times before (limit set by "
            "`am.max_restarts`); the job fails."
        )
        return _failed(
            job, FailJob(node=node, failure=failure, is_restartable=False, note=note)
        )
    return _restart(job, f"{node}: {failure.message}", counted=1)


def _restart(job: Job, reason: str, *, counted: int) -> Step:
    for name in job.awaited:
        job = job.without_node(name)
    job = without_silent(job)
    setting = "stop_timeout_s" if job.is_gathered else "gather_timeout_s"
    job = replace(
        job, state=JobState.RECOVERING, restarts=job.restarts + counted, reason=reason
    )
    arm = ArmDeadline(attempt=job.attempt, name=DeadlineName.RECOVER, setting=setting)
    after, commands = settle(job)
    if after.state is not JobState.RECOVERING:
        return after, commands
    return after, [*stop_processes(job, job.running), arm]


def stop(job: Job, reason: str) -> Step:
    """End every process; the job then ends with success."""
    job = replace(without_silent(job), state=JobState.STOPPING, reason=reason)
    after, commands = settle(job)
    if after.state is not JobState.STOPPING:
        return after, commands
    arm = ArmDeadline(attempt=job.attempt, name=DeadlineName.STOP, setting="stop_timeout_s")
    return after, [*stop_processes(job, job.running, ending_reason=reason), arm]


def without_silent(job: Job) -> Job:
    """Return the job with the processes of silent nodes counted as ended.

    Their operators end what is left of them, or they end it themselves when they are back.
    """
    for name in job.lost & job.nodes.keys():
        if job.nodes[name].process is ProcessState.RUNNING:
            job = job.with_process(name, ProcessState.STOPPED).with_lost(name)
    return job


def finish(job: Job, reason: str) -> Step:
    """End the job with success."""
    return replace(job, state=JobState.FINISHED, reason=reason), [FinishJob(reason=reason)]


def fail(job: Job, node: str | None, message: str, *, is_restartable: bool) -> Step:
    """Fail the job for something that no process did."""
    failure = Failure(kind="node", message=message, is_restartable=is_restartable)
    return _failed(job, FailJob(node=node, failure=failure, is_restartable=is_restartable))


def _failed(job: Job, command: FailJob) -> Step:
    where = f"{command.node}: " if command.node and command.failure.kind != "node" else ""
    reason = f"{where}{command.failure.message}"
    return replace(job, state=JobState.FAILED, reason=reason), [command]
