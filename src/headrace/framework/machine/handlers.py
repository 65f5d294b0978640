"""The handlers of the shipped machines: pure functions, facts and event in, decision out.

Three questions recur and have one function each: `_settle` (do the facts as they are now end
a phase?), `_on_failure` (what follows from a failed process?), `_restart` (start it again).
"""

from __future__ import annotations

from dataclasses import replace

from headrace.errors import NodeLostError, WaitTimeoutError
from headrace.framework.failure import Failure
from headrace.framework.machine.commands import (
    ArmDeadline,
    DeadlineName,
    FailJob,
    FinishJob,
    StartProcesses,
    StopProcesses,
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
from headrace.framework.machine.facts import Job, JobState, NodeFacts, ProcessState
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
        return _fail(job, event.node, problem, is_restartable=True)
    if event.process_attempt is not None and event.process_attempt > job.attempt:
        # A master that was started again may know an older attempt than the nodes run.
        job = _with_attempt(job, event.process_attempt)
        again = MasterStarted(attempt=job.attempt)
        after, commands = on_registered_while_gathering(job, event)
        return after, [*on_master_started(after, again)[1], *commands]
    job = _with_registration(job, event)
    if event.ending_reason is not None:
        return _stop(job, event.ending_reason)
    if event.failure is not None and job.nodes[event.node].process is ProcessState.FAILED:
        return _on_failure(job, event.node, event.failure)
    return _settle(job)


def on_registered_while_running(job: Job, event: NodeRegistered) -> Step:
    """Repeat harmlessly for the same node process; a new node process restarts the group."""
    problem = _inconsistency(job, event)
    if problem is not None:
        return _fail(job, event.node, problem, is_restartable=True)
    known = job.nodes[event.node]
    if event.instance != known.instance:
        if known.process is ProcessState.FINISHED and not job.restarts_finished:
            again = replace(known, instance=event.instance, host=event.host, port=event.port)
            return job.with_node(event.node, again), []
        failure = Failure(
            kind="node",
            message=f"Node {event.node} was started again while the group ran (its former "
            f"process {known.instance} is gone, with the algorithm process).",
        )
        job = _with_registration(job, event)
        return _restart_or_fail(job, event.node, failure)
    if event.process_attempt != job.attempt or known.process is not ProcessState.RUNNING:
        return job, []
    job = _with_registration(job, event)
    if event.failure is not None and event.process is ProcessState.FAILED:
        return _on_failure(job, event.node, event.failure)
    return _settle(job)


def on_registered_while_recovering(job: Job, event: NodeRegistered) -> Step:
    """Take the node back; what it still runs must end first."""
    return _on_registered_while_ending(job, event, ending_reason=None)


def on_registered_while_stopping(job: Job, event: NodeRegistered) -> Step:
    """Tell the node to end what it still runs."""
    return _on_registered_while_ending(job, event, ending_reason=job.reason)


def on_process_finished(job: Job, event: ProcessFinished) -> Step:
    """Note it; the job may have ended, or the group may be complete for its restart."""
    return _settle(job.with_process(event.node, ProcessState.FINISHED))


def on_process_stopped(job: Job, event: ProcessStopped) -> Step:
    """Note it; the phase may have ended."""
    return _settle(job.with_process(event.node, ProcessState.STOPPED))


def on_process_failed(job: Job, event: ProcessFailed) -> Step:
    """Restart the group or fail the job; a repeated report changes nothing."""
    if job.nodes[event.node].process is ProcessState.FAILED:
        return job, []
    job = job.with_process(event.node, ProcessState.FAILED)
    return _on_failure(job, event.node, event.failure)


def on_process_failed_while_stopping(job: Job, event: ProcessFailed) -> Step:
    """Note the end: the outcome of the job is decided already."""
    return _settle(job.with_process(event.node, ProcessState.FAILED))


def on_lost_while_gathering(job: Job, event: NodeLost) -> Step:
    """Wait for it again; the gather deadline bounds that."""
    return job.without_node(event.node), []


def on_lost(job: Job, event: NodeLost) -> Step:
    """A silent node ends the attempt, unless its part is done or it is a helper."""
    known = job.nodes[event.node]
    if known.process is ProcessState.FINISHED:
        return job, []
    if job.roles[known.role].policy.is_helper:
        return _settle(job.with_process(event.node, ProcessState.FAILED))
    error = NodeLostError(node=event.node, silent_s=event.silent_s, limit_s=event.limit_s)
    failure = Failure(kind="node", message=str(error))
    return _restart_or_fail(job.without_node(event.node), event.node, failure)


def on_lost_while_recovering(job: Job, event: NodeLost) -> Step:
    """Wait for it to come back; the recover deadline bounds that."""
    if job.nodes[event.node].process is ProcessState.FINISHED:
        return job, []
    return job.without_node(event.node), []


def on_lost_while_stopping(job: Job, event: NodeLost) -> Step:
    """Count it as ended: its operator ends whatever is left."""
    return _settle(job.with_process(event.node, ProcessState.STOPPED))


def on_stop_requested(job: Job, event: StopRequested) -> Step:
    """End every process; the job then ends with success."""
    return _stop(job, event.reason)


def on_gather_deadline(job: Job, event: GatherDeadlineReached) -> Step:
    """Fail: the nodes did not come."""
    error = WaitTimeoutError(
        waited_for=f"every node to register: {len(job.nodes)} of "
        f"{job.expected or _planned(job)} came, missing {_some(job.missing)}",
        waited_s=event.limit_s,
        setting="timeouts.gather_timeout_s",
        hint="Preparing the Python environment of a node may take longer: raise the setting. "
        "See the TaskManager log of the missing nodes.",
    )
    return _fail(job, None, str(error), is_restartable=False)


def on_recover_deadline(job: Job, event: RecoverDeadlineReached) -> Step:
    """Fail: the group could not be brought together again. Flink may start everything anew."""
    waiting_for = [*job.missing, *job.running]
    error = WaitTimeoutError(
        waited_for=f"the group to restart: no answer of {_some(waiting_for)}",
        waited_s=event.limit_s,
        setting=f"timeouts.{event.setting}",
        hint=f"The restart was for: {job.reason}" if job.reason else "",
    )
    return _fail(job, None, str(error), is_restartable=True)


def on_stop_deadline(job: Job, event: StopDeadlineReached) -> Step:
    """End all the same: the operators kill what is left."""
    reason = (
        f"{job.reason} (no answer of {_some(list(job.running))} within {event.limit_s:.1f} s, "
        "`timeouts.stop_timeout_s`; they are killed)"
    )
    return _finish(job, reason)


def _on_registered_while_ending(
    job: Job, event: NodeRegistered, *, ending_reason: str | None
) -> Step:
    problem = _inconsistency(job, event)
    if problem is not None:
        return _fail(job, event.node, problem, is_restartable=True)
    known = job.nodes.get(event.node)
    is_same = known is not None and known.instance == event.instance
    if is_same and known is not None and known.process is not ProcessState.RUNNING:
        return job, []
    keeps = known is not None and known.process is ProcessState.FINISHED
    job = _with_registration(job, event)
    if keeps:
        job = job.with_process(event.node, ProcessState.FINISHED)
    after, commands = _settle(job)
    if job.nodes[event.node].process is ProcessState.RUNNING:
        stop = StopProcesses(
            attempt=job.attempt, nodes=(event.node,), ending_reason=ending_reason
        )
        commands = [stop, *commands]
    return after, commands


def _settle(job: Job) -> Step:
    """Leave the present phase if the facts say that it is over."""
    if job.state is JobState.GATHERING and job.is_gathered:
        return _open(job)
    if job.state is JobState.RUNNING and job.is_decided():
        if job.running:
            return _stop(job, "every deciding process has finished")
        return _finish(job, "every process has finished")
    if job.state is JobState.RECOVERING and job.is_gathered and not job.running:
        return _start_again(job)
    if job.state is JobState.STOPPING and not job.running:
        return _finish(job, job.reason or "stopped")
    return job, []


def _open(job: Job) -> Step:
    """Every node is there: start those without a process of this attempt."""
    if any(node.process is ProcessState.STOPPED for node in job.nodes.values()):
        # The former master was restarting the group when it died: go on with that.
        return _restart(job, "the master was lost during a restart of the group", counted=0)
    job = replace(job, state=JobState.RUNNING)
    fresh = tuple(n for n, node in job.nodes.items() if node.process is ProcessState.NONE)
    if not fresh:
        return _settle(job)
    return _start(job, fresh)


def _start(job: Job, nodes: tuple[str, ...]) -> Step:
    for name in nodes:
        job = job.with_process(name, ProcessState.RUNNING)
    start = StartProcesses(
        attempt=job.attempt, nodes=nodes, cluster=job.cluster, ports=job.ports
    )
    return job, [start]


def _start_again(job: Job) -> Step:
    """The old attempt has ended everywhere: open the next one."""
    job = replace(job, state=JobState.RUNNING, attempt=job.attempt + 1, reason=None)
    nodes = tuple(
        name
        for name, node in job.nodes.items()
        if job.restarts_finished or node.process is not ProcessState.FINISHED
    )
    return _start(job, nodes)


def _on_failure(job: Job, node: str, failure: Failure) -> Step:
    """A process of the present attempt has failed; `job` has it noted."""
    if job.roles[job.nodes[node].role].policy.is_helper:
        return _settle(job)
    if job.state is JobState.RECOVERING and failure.is_restartable:
        return _settle(job)  # a consequence of the failure that is being mended
    return _restart_or_fail(job, node, failure)


def _restart_or_fail(job: Job, node: str, failure: Failure) -> Step:
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
    setting = "stop_timeout_s" if job.is_gathered else "gather_timeout_s"
    job = replace(
        job, state=JobState.RECOVERING, restarts=job.restarts + counted, reason=reason
    )
    arm = ArmDeadline(attempt=job.attempt, name=DeadlineName.RECOVER, setting=setting)
    after, commands = _settle(job)
    if after.state is not JobState.RECOVERING:
        return after, commands
    stop = StopProcesses(attempt=job.attempt, nodes=job.running)
    return after, [stop, arm] if stop.nodes else [arm]


def _stop(job: Job, reason: str) -> Step:
    job = replace(job, state=JobState.STOPPING, reason=reason)
    after, commands = _settle(job)
    if after.state is not JobState.STOPPING:
        return after, commands
    stop = StopProcesses(attempt=job.attempt, nodes=job.running, ending_reason=reason)
    arm = ArmDeadline(attempt=job.attempt, name=DeadlineName.STOP, setting="stop_timeout_s")
    return after, [stop, arm]


def _finish(job: Job, reason: str) -> Step:
    return replace(job, state=JobState.FINISHED, reason=reason), [FinishJob(reason=reason)]


def _fail(job: Job, node: str | None, message: str, *, is_restartable: bool) -> Step:
    failure = Failure(kind="node", message=message, is_restartable=is_restartable)
    return _failed(job, FailJob(node=node, failure=failure, is_restartable=is_restartable))


def _failed(job: Job, command: FailJob) -> Step:
    where = f"{command.node}: " if command.node and command.failure.kind != "node" else ""
    reason = f"{where}{command.failure.message}"
    return replace(job, state=JobState.FAILED, reason=reason), [command]


def _with_registration(job: Job, event: NodeRegistered) -> Job:
    """Return the job with the node as it describes itself."""
    role = replace(job.roles[event.role], parallelism=event.parallelism)
    job = replace(job, roles={**job.roles, event.role: role})
    process = event.process
    if event.process_attempt != job.attempt:
        is_done = process is ProcessState.FINISHED and not job.restarts_finished
        process = ProcessState.FINISHED if is_done else ProcessState.NONE
    facts = NodeFacts(
        role=event.role,
        index=event.index,
        host=event.host,
        port=event.port,
        instance=event.instance,
        process=process,
    )
    return job.with_node(event.node, facts)


def _with_attempt(job: Job, attempt: int) -> Job:
    """Return the job at a newer attempt: what ran in the older one counts for nothing."""
    nodes = {}
    for name, node in job.nodes.items():
        is_done = node.process is ProcessState.FINISHED and not job.restarts_finished
        nodes[name] = node if is_done else replace(node, process=ProcessState.NONE)
    return replace(job, attempt=attempt, nodes=nodes)


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
