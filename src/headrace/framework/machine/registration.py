"""How a registration changes the facts. Pure functions."""

from __future__ import annotations

from dataclasses import replace

from headrace.framework.machine.events import NodeRegistered
from headrace.framework.machine.facts import Job, NodeFacts, ProcessState

__all__ = ["with_attempt", "with_registration"]


def with_registration(job: Job, event: NodeRegistered) -> Job:
    """Return the job with the node as it describes itself."""
    role = replace(job.roles[event.role], parallelism=event.parallelism)
    job = replace(job, roles={**job.roles, event.role: role})
    process, life = event.process, event.process_life
    if event.process_attempt != job.attempt:
        known = job.nodes.get(event.node)
        life = 0 if known is None else known.life
        is_done = process is ProcessState.FINISHED and not role.policy.restarts_finished
        process = ProcessState.FINISHED if is_done else ProcessState.NONE
    facts = NodeFacts(
        role=event.role,
        index=event.index,
        host=event.host,
        port=event.port,
        instance=event.instance,
        process=process,
        life=life,
    )
    return job.with_node(event.node, facts)


def with_attempt(job: Job, attempt: int) -> Job:
    """Return the job at a newer attempt: what ran in the older one counts for nothing."""
    fresh = tuple(name for name in job.nodes if not job.keeps_result(name))
    return replace(job.with_first_lives(fresh), attempt=attempt)
