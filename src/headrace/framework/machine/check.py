"""Checks and the picture of a table."""

from __future__ import annotations

from collections import defaultdict

from headrace.errors import PlanError
from headrace.framework.machine.events import (
    Event,
    GatherDeadlineReached,
    NodeLost,
    RecoverDeadlineReached,
    StopDeadlineReached,
    StopRequested,
)
from headrace.framework.machine.facts import JobState
from headrace.framework.machine.table import Machine, Table

__all__ = ["diagram", "validate"]

_DEADLINES: dict[JobState, type[Event]] = {
    JobState.GATHERING: GatherDeadlineReached,
    JobState.RECOVERING: RecoverDeadlineReached,
    JobState.STOPPING: StopDeadlineReached,
}
"""RUNNING has none: a job trains as long as it takes."""


def validate(machine: Machine) -> None:
    """Check that the machine can run every job; called when a job is planned.

    Raises:
        PlanError: With everything that is wrong: a state that cannot be reached, a row that
            neither decides nor says why it ignores, a terminal state that is left, or a missing
            row for `NodeLost`, `StopRequested` or the deadline of a state.
    """
    problems = [*_bad_rows(machine.table), *_missing_rows(machine.table)]
    unreachable = set(JobState) - _reachable(machine.table)
    problems += [f"state {state.value} cannot be reached" for state in _ordered(unreachable)]
    if problems:
        msg = f"State machine {machine.name!r} cannot be used: " + "; ".join(problems)
        raise PlanError(msg)


def diagram(table: Table) -> str:
    """Return the table as a mermaid state diagram; rows that keep the state are left out."""
    arrows: dict[tuple[JobState, JobState], list[str]] = defaultdict(list)
    for (state, event), arc in table.items():
        for target in arc.targets:
            if target is not state:
                arrows[state, target].append(event.__name__)
    order = list(JobState)
    lines = ["stateDiagram-v2", f"    [*] --> {JobState.GATHERING.value}"]
    for source, target in sorted(arrows, key=lambda a: (order.index(a[0]), order.index(a[1]))):
        label = ", ".join(sorted(arrows[source, target]))
        lines.append(f"    {source.value} --> {target.value}: {label}")
    lines += [f"    {state.value} --> [*]" for state in order if state.is_terminal]
    return "\n".join(lines) + "\n"


def _bad_rows(table: Table) -> list[str]:
    problems = []
    for (state, event), arc in table.items():
        row = f"row ({state.value}, {event.__name__})"
        if arc.handler is None and not arc.reason:
            problems.append(f"{row} ignores its event without a reason")
        if arc.handler is not None and not arc.targets:
            problems.append(f"{row} declares no target")
        if state.is_terminal and arc.targets - {state}:
            problems.append(f"{row} leaves a terminal state")
    return problems


def _missing_rows(table: Table) -> list[str]:
    problems = []
    for state in JobState:
        if state.is_terminal:
            continue
        needed: list[type[Event]] = [NodeLost, StopRequested]
        if state in _DEADLINES:
            needed.append(_DEADLINES[state])
        problems += [
            f"state {state.value} has no row for {event.__name__}"
            for event in needed
            if (state, event) not in table
        ]
    return problems


def _reachable(table: Table) -> set[JobState]:
    seen = {JobState.GATHERING}
    grows = True
    while grows:
        targets = {t for (state, _), arc in table.items() if state in seen for t in arc.targets}
        grows = not targets <= seen
        seen |= targets
    return seen


def _ordered(states: set[JobState]) -> list[JobState]:
    return [state for state in JobState if state in states]
