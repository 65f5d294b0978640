"""The handlers of the shipped machines: pure functions, facts and event in, decision out."""

from __future__ import annotations

from dataclasses import replace

from headrace.errors import NodeLostError, WaitTimeoutError
from headrace.framework.failure import Failure
from headrace.framework.machine.commands import ArmDeadline, DeadlineName
from headrace.framework.machine.decisions import (
    fail,
    finish,
    on_failure,
    restart_or_fail,
    settle,
    stop,
    stop_processes,
    without_silent,
)
from headrace.framework.machine.events import (
    GatherDeadlineReached,
    MasterStarted,
    NodeLost,
    NodeRegistered,
    ProcessFailed,
    ProcessFinished,
    ProcessStopped,
    RecoverDeadlineReached,
    StopDeadlineReached,
    StopRequested,
)
from headrace.framework.machine.facts import Job, ProcessState
from headrace.framework.machine.registration import with_attempt, with_registration
from headrace.framework.machine.table import Step

__all__ = [
    "on_gather_deadline",
    "on_lost",
    "on_lost_while_gathering",
    "on_lost_while_recovering",
    "on_lost_while_stopping",
    "on_master_started",
    "on_process_failed",
    "on_process_failed_while_stopping",
    "on_process_finished",
    "on_process_stopped",
    "on_recover_deadline",
    "on_registered_while_gathering",
    "on_registered_while_recovering",
    "on_registered_while_running",
    "on_registered_while_stopping",
    "on_return_deadline",
    "on_stop_deadline",
    "on_stop_requested",
]


def on_master_started(job: Job, event: MasterStarted) -> Step:
    """Begin to gather, bounded."""
    arm = ArmDeadline(
        attempt=event.attempt, name=DeadlineName.GATHER, setting="gather_timeout_s"
    )
    return job, [arm]


def on_registered_while_gathering(job: Job, event: NodeRegistered) -> Step:
    """Take the node's own report; go on when the last expected node is there."""
    problem = _inconsistency(job, event)
    if problem is not None:
        return fail(job, event.node, problem, is_restartable=True)
    if event.process_attempt is not None and event.process_attempt > job.attempt:
        # A master that was started again may know an older attempt than the nodes run.
        job = with_attempt(job, event.process_attempt)
        again = MasterStarted(attempt=job.attempt)
        after, commands = on_registered_while_gathering(job, event)
        return after, [*on_master_started(after, again)[1], *commands]
    job = with_registration(job, event)
    if event.ending_reason is not None:
        return stop(job, event.ending_reason)
    if event.failure is not None and job.nodes[event.node].process is ProcessState.FAILED:
        return on_failure(job, event.node, event.failure)
    return settle(job)


def on_registered_while_running(job: Job, event: NodeRegistered) -> Step:
    """Repeat harmlessly for the same node process; a new one has lost the algorithm process."""
    problem = _inconsistency(job, event)
    if problem is not None:
        return fail(job, event.node, problem, is_restartable=True)
    job = job.with_return(event.node)
    known = job.nodes[event.node]
    if event.instance != known.instance:
        if job.keeps_result(event.node):
            again = replace(known, instance=event.instance, host=event.host, port=event.port)
            return job.with_node(event.node, again), []
        failure = Failure(
            kind="node",
            message=f"Node {event.node} was started again while the group ran (its former "
            f"process {known.instance} is gone, with the algorithm process).",
        )
        job = with_registration(job, event).with_process(event.node, ProcessState.FAILED)
        return on_failure(job, event.node, failure)
    is_present = (event.process_attempt, event.process_life) == (job.attempt, known.life)
    if not is_present or known.process is not ProcessState.RUNNING:
        return job, []
    job = with_registration(job, event)
    if event.failure is not None and event.process is ProcessState.FAILED:
        return on_failure(job, event.node, event.failure)
    return settle(job)


def on_registered_while_recovering(job: Job, event: NodeRegistered) -> Step:
    """Take the node back; what it still runs must end first."""
    if event.process_attempt is None or event.process_attempt <= job.attempt:
        return _on_registered_while_ending(job, event, ending_reason=None)
    job = with_attempt(job, event.process_attempt)  # as while gathering
    arm = ArmDeadline(
        attempt=job.attempt, name=DeadlineName.RECOVER, setting="gather_timeout_s"
    )
    after, commands = _on_registered_while_ending(job, event, ending_reason=None)
    return after, [arm, *commands]


def on_registered_while_stopping(job: Job, event: NodeRegistered) -> Step:
    """Tell the node to end what it still runs."""
    return _on_registered_while_ending(job, event, ending_reason=job.reason)


def on_process_finished(job: Job, event: ProcessFinished) -> Step:
    """Note it; the job may have ended, or the group may be complete for its restart."""
    return settle(job.with_process(event.node, ProcessState.FINISHED))


def on_process_stopped(job: Job, event: ProcessStopped) -> Step:
    """Note it; the phase may have ended."""
    return settle(job.with_process(event.node, ProcessState.STOPPED))


def on_process_failed(job: Job, event: ProcessFailed) -> Step:
    """Restart the process or the group, or fail the job; repeated, it changes nothing."""
    if job.nodes[event.node].process is ProcessState.FAILED:
        return job, []
    job = job.with_process(event.node, ProcessState.FAILED)
    return on_failure(job, event.node, event.failure)


def on_process_failed_while_stopping(job: Job, event: ProcessFailed) -> Step:
    """Note the end: the outcome of the job is decided already."""
    return settle(job.with_process(event.node, ProcessState.FAILED))


def on_lost_while_gathering(job: Job, event: NodeLost) -> Step:
    """Wait for it again; the gather deadline bounds that."""
    return job.without_node(event.node), []


def on_lost(job: Job, event: NodeLost) -> Step:
    """A silent node ends the attempt, unless its part is done or the others can go on."""
    if job.nodes[event.node].process is ProcessState.FINISHED:
        return job, []
    policy = job.policy(event.node)
    if policy.is_helper:
        return job.with_lost(event.node), []
    if policy.restarts_alone:
        arm = ArmDeadline(
            attempt=job.attempt,
            name=DeadlineName.RECOVER,
            setting="gather_timeout_s",
            node=event.node,
        )
        return job.with_lost(event.node), [] if event.node in job.lost else [arm]
    error = NodeLostError(node=event.node, silent_s=event.silent_s, limit_s=event.limit_s)
    failure = Failure(kind="node", message=str(error))
    return restart_or_fail(job.without_node(event.node), event.node, failure)


def on_lost_while_recovering(job: Job, event: NodeLost) -> Step:
    """Wait for it to come back, bounded by the recover deadline; not for a helper."""
    if job.nodes[event.node].process is ProcessState.FINISHED:
        return job, []
    if job.policy(event.node).is_helper:
        return settle(without_silent(job.with_lost(event.node)))
    return job.without_node(event.node), []


def on_lost_while_stopping(job: Job, event: NodeLost) -> Step:
    """Count it as ended: its operator ends whatever is left."""
    return settle(job.with_process(event.node, ProcessState.STOPPED))


def on_stop_requested(job: Job, event: StopRequested) -> Step:
    """End every process; the job then ends with success."""
    return stop(job, event.reason)


def on_gather_deadline(job: Job, event: GatherDeadlineReached) -> Step:
    """Fail: the nodes did not come. In a later attempt they may be away for a while only."""
    error = WaitTimeoutError(
        waited_for=f"every node to register: {len(job.nodes)} of "
        f"{job.expected or _planned(job)} came, missing {_some(job.missing)}",
        waited_s=event.limit_s,
        setting="timeouts.gather_timeout_s",
        hint="Preparing the Python environment of a node may take longer: raise the setting. "
        "See the TaskManager log of the missing nodes.",
    )
    return fail(job, None, str(error), is_restartable=job.attempt > 1)


def on_recover_deadline(job: Job, event: RecoverDeadlineReached) -> Step:
    """Fail: the group could not be brought together again. Flink may start everything anew."""
    if event.node is not None:  # from before; now the whole group is waited for
        return job, []
    waiting_for = [*job.missing, *job.running]
    error = WaitTimeoutError(
        waited_for=f"the group to restart: no answer of {_some(waiting_for)}",
        waited_s=event.limit_s,
        setting=f"timeouts.{event.setting}",
        hint=f"The restart was for: {job.reason}" if job.reason else "",
    )
    return fail(job, None, str(error), is_restartable=True)


def on_return_deadline(job: Job, event: RecoverDeadlineReached) -> Step:
    """Fail if the node that the others go on without has not come back. Flink may restart."""
    if event.node not in job.awaited:
        return job, []
    error = WaitTimeoutError(
        waited_for=f"the silent node {event.node} to come back",
        waited_s=event.limit_s,
        setting=f"timeouts.{event.setting}",
        hint="It had sent no heartbeat for longer than `timeouts.heartbeat_timeout_s`.",
    )
    return fail(job, None, str(error), is_restartable=True)


def on_stop_deadline(job: Job, event: StopDeadlineReached) -> Step:
    """End all the same: the operators kill what is left."""
    reason = (
        f"{job.reason} (no answer of {_some(list(job.running))} within {event.limit_s:.1f} s, "
        "`timeouts.stop_timeout_s`; they are killed)"
    )
    return finish(job, reason)


def _on_registered_while_ending(
    job: Job, event: NodeRegistered, *, ending_reason: str | None
) -> Step:
    problem = _inconsistency(job, event)
    if problem is not None:
        return fail(job, event.node, problem, is_restartable=True)
    job = job.with_return(event.node)
    known = job.nodes.get(event.node)
    if known is not None and known.instance == event.instance:
        is_told_newer = event.process_attempt == job.attempt and event.process_life < known.life
        if known.process is not ProcessState.RUNNING or is_told_newer:
            return job, []
    keeps = known is not None and known.process is ProcessState.FINISHED
    job = with_registration(job, event)
    if keeps:
        job = job.with_process(event.node, ProcessState.FINISHED)
    after, commands = settle(job)
    if job.nodes[event.node].process is ProcessState.RUNNING:
        stops = stop_processes(job, (event.node,), ending_reason=ending_reason)
        commands = [*stops, *commands]
    return after, commands


def _inconsistency(job: Job, event: NodeRegistered) -> str | None:
    """Say why this registration cannot be true together with the earlier ones."""
    role = job.roles.get(event.role)
    if role is None:
        return (
            f"Node {event.node} has the role {event.role!r}, which is not in the plan "
            f"{sorted(job.roles)}."
        )
    if role.parallelism is not None and role.parallelism != event.parallelism:
        return (
            f"Node {event.node} says that its role has {event.parallelism} nodes; the others "
            f"say {role.parallelism}."
        )
    if not 0 <= event.index < event.parallelism or event.node != f"{event.role}-{event.index}":
        return f"Node {event.node} cannot be number {event.index} of {event.parallelism}."
    return None


def _planned(job: Job) -> str:
    return f"about {sum(role.planned_parallelism for role in job.roles.values())}"


def _some(names: list[str]) -> str:
    """Return at most ten names, and how many more there are."""
    shown = ", ".join(sorted(names)[:10]) or "none"
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"
