"""The machines that come with Headrace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from headrace.errors import PlanError
from headrace.framework.machine import handlers as on
from headrace.framework.machine.events import (
    Event,
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
from headrace.framework.machine.facts import JobState, RoleFacts, RolePolicy
from headrace.framework.machine.table import Arc, Machine, Table, ignoring
from headrace.framework.machine.tensorflow import tensorflow_policy

__all__ = ["ALL_FINISH", "PYTORCH", "TENSORFLOW", "shipped_machine"]

_GATHERING = JobState.GATHERING
_RUNNING = JobState.RUNNING
_RECOVERING = JobState.RECOVERING
_STOPPING = JobState.STOPPING
_FINISHED = JobState.FINISHED
_FAILED = JobState.FAILED

_EVERY = frozenset(JobState)
_ENDING = frozenset({_STOPPING, _FINISHED})
_GATHERED = ignoring("the nodes have gathered in time")
_RECOVERED = ignoring("the group has been restarted, or ended, in time")

_EVENTS: tuple[type[Event], ...] = (
    MasterStarted,
    NodeRegistered,
    NodeLost,
    ProcessFinished,
    ProcessFailed,
    ProcessStopped,
    StopRequested,
    GatherDeadlineReached,
    RecoverDeadlineReached,
    StopDeadlineReached,
)

_BASE_TABLE: Table = {
    (_GATHERING, MasterStarted): Arc(on.on_master_started, frozenset({_GATHERING})),
    (_GATHERING, NodeRegistered): Arc(on.on_registered_while_gathering, _EVERY),
    (_GATHERING, NodeLost): Arc(on.on_lost_while_gathering, frozenset({_GATHERING})),
    (_GATHERING, ProcessFinished): Arc(on.on_process_finished, frozenset({_GATHERING})),
    (_GATHERING, ProcessFailed): Arc(on.on_process_failed, _EVERY),
    (_GATHERING, ProcessStopped): Arc(on.on_process_stopped, frozenset({_GATHERING})),
    (_GATHERING, StopRequested): Arc(on.on_stop_requested, _ENDING),
    (_GATHERING, GatherDeadlineReached): Arc(on.on_gather_deadline, frozenset({_FAILED})),
    (_RUNNING, NodeRegistered): Arc(on.on_registered_while_running, _EVERY - {_GATHERING}),
    (_RUNNING, NodeLost): Arc(on.on_lost, frozenset({_RUNNING, _RECOVERING, _FAILED})),
    (_RUNNING, ProcessFinished): Arc(on.on_process_finished, _ENDING | {_RUNNING}),
    (_RUNNING, ProcessFailed): Arc(on.on_process_failed, _EVERY - {_GATHERING}),
    (_RUNNING, ProcessStopped): ignoring("its operator is ending the node; Flink decides"),
    (_RUNNING, StopRequested): Arc(on.on_stop_requested, _ENDING),
    (_RUNNING, GatherDeadlineReached): _GATHERED,
    (_RUNNING, RecoverDeadlineReached): Arc(
        on.on_return_deadline, frozenset({_RUNNING, _FAILED})
    ),
    (_RECOVERING, NodeRegistered): Arc(
        on.on_registered_while_recovering, _EVERY - {_GATHERING}
    ),
    (_RECOVERING, NodeLost): Arc(
        on.on_lost_while_recovering, frozenset({_RECOVERING, _RUNNING})
    ),
    (_RECOVERING, ProcessFinished): Arc(
        on.on_process_finished, _ENDING | {_RECOVERING, _RUNNING}
    ),
    (_RECOVERING, ProcessFailed): Arc(
        on.on_process_failed, frozenset({_RECOVERING, _RUNNING, _FAILED})
    ),
    (_RECOVERING, ProcessStopped): Arc(
        on.on_process_stopped, frozenset({_RECOVERING, _RUNNING})
    ),
    (_RECOVERING, StopRequested): Arc(on.on_stop_requested, _ENDING),
    (_RECOVERING, GatherDeadlineReached): _GATHERED,
    (_RECOVERING, RecoverDeadlineReached): Arc(
        on.on_recover_deadline, frozenset({_RECOVERING, _FAILED})
    ),
    (_STOPPING, NodeRegistered): Arc(on.on_registered_while_stopping, _ENDING | {_FAILED}),
    (_STOPPING, NodeLost): Arc(on.on_lost_while_stopping, _ENDING),
    (_STOPPING, ProcessFinished): Arc(on.on_process_finished, _ENDING),
    (_STOPPING, ProcessFailed): Arc(on.on_process_failed_while_stopping, _ENDING),
    (_STOPPING, ProcessStopped): Arc(on.on_process_stopped, _ENDING),
    (_STOPPING, StopRequested): ignoring("the job is stopping already"),
    (_STOPPING, GatherDeadlineReached): _GATHERED,
    (_STOPPING, RecoverDeadlineReached): _RECOVERED,
    (_STOPPING, StopDeadlineReached): Arc(on.on_stop_deadline, frozenset({_FINISHED})),
    **{(_FINISHED, event): ignoring("the job has finished") for event in _EVENTS},
    **{(_FAILED, event): ignoring("the job has failed") for event in _EVENTS},
}

ALL_FINISH = Machine(name="all_finish", table=_BASE_TABLE)
"""The job finishes when every process has finished.

A failed process: in batch mode the group is restarted, up to `am.max_restarts` times; nodes
that have finished stay finished. In stream mode the job fails at once and Flink's strategy
decides.
"""


def _all_together(name: str, roles: Mapping[str, RoleFacts]) -> RolePolicy:  # noqa: ARG001
    return RolePolicy(restarts_finished=True)


PYTORCH = replace(ALL_FINISH, name="pytorch", policy_of=_all_together)
"""An all-reduce group: as `ALL_FINISH`, but a restart runs finished nodes again as well.

A collective needs every member: a restarted worker would wait for ever for one that is done.
"""

TENSORFLOW = replace(ALL_FINISH, name="tensorflow", policy_of=tensorflow_policy)
"""Parameter servers, or an all-reduce group, with chief and helpers: `tensorflow_policy`."""

_SHIPPED = {machine.name: machine for machine in (ALL_FINISH, PYTORCH, TENSORFLOW)}


def shipped_machine(name: str) -> Machine:
    """Return the shipped machine `name`.

    Raises:
        PlanError: There is none of that name.
    """
    try:
        return _SHIPPED[name]
    except KeyError:
        msg = (
            f"There is no state machine {name!r}; shipped are {sorted(_SHIPPED)}. "
            "An own one is passed as a headrace.framework.machine.Machine."
        )
        raise PlanError(msg) from None
