"""The table of a state machine, and the machine as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from headrace.framework.machine.commands import Command
from headrace.framework.machine.events import Event
from headrace.framework.machine.facts import Job, JobState, RoleFacts, RolePolicy

__all__ = ["Arc", "Handler", "Machine", "Step", "Table", "ignoring"]

Step: TypeAlias = tuple[Job, list[Command]]
"""What a handler decides: the new facts, and what is to be done."""

Handler: TypeAlias = Callable[[Job, Any], Step]
"""A pure function of the facts and one event (of the row's type)."""


@dataclass(frozen=True, slots=True)
class Arc:
    """One row: who decides, and which states the decision may lead to.

    Attributes:
        handler: Decides; None if the event is ignored in this state.
        targets: Every state the handler may return; checked at each step.
        reason: Why the event is ignored; empty if it is not.
    """

    handler: Handler | None
    targets: frozenset[JobState] = frozenset()
    reason: str = ""


def ignoring(reason: str) -> Arc:
    """Return a row that ignores its event, for `reason`."""
    return Arc(handler=None, reason=reason)


Table: TypeAlias = Mapping[tuple[JobState, type[Event]], Arc]
"""State and type of event to row. No row means: the event must not come in that state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A state machine as a value: an immutable table and the policies of the roles.

    Extend a shipped one: `replace(ALL_FINISH, name="mine", table={**ALL_FINISH.table, ...})`.
    A machine travels to the master by cloudpickle; planning a job checks it by `validate`.

    Attributes:
        name: For log lines.
        table: The rows; copied, so a later change of the argument does nothing.
        policies: Policy of roles by name.
        default_policy: Policy of every other role.
        restarts_finished: Whether a group restart runs finished nodes again.
    """

    name: str
    table: Table
    policies: Mapping[str, RolePolicy] = field(default_factory=dict)
    default_policy: RolePolicy = field(default_factory=RolePolicy)
    restarts_finished: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", MappingProxyType(dict(self.table)))
        object.__setattr__(self, "policies", MappingProxyType(dict(self.policies)))

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.name, dict(self.table), dict(self.policies))
        return (_rebuild, (*parts, self.default_policy, self.restarts_finished))

    def initial_job(
        self,
        roles: Mapping[str, RoleFacts],
        *,
        max_restarts: int,
        attempt: int = 1,
        restarts: int = 0,
    ) -> Job:
        """Return the facts before the first event, with the machine's policies in the roles.

        Raises:
            PlanError: No role decides when the job ends.
        """
        with_policies = {
            name: replace(role, policy=self.policies.get(name, self.default_policy))
            for name, role in roles.items()
        }
        return Job(
            attempt=attempt,
            roles=with_policies,
            max_restarts=max_restarts,
            restarts=restarts,
            restarts_finished=self.restarts_finished,
        )


def _rebuild(
    name: str,
    table: Table,
    policies: Mapping[str, RolePolicy],
    default_policy: RolePolicy,
    restarts_finished: bool,
) -> Machine:
    return Machine(
        name=name,
        table=table,
        policies=policies,
        default_policy=default_policy,
        restarts_finished=restarts_finished,
    )
