"""The table of a state machine, and the machine as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from headrace.framework.machine.commands import Command
from headrace.framework.machine.events import Event
from headrace.framework.machine.facts import Job, JobState, RoleFacts, RolePolicy

__all__ = [
    "Arc",
    "Handler",
    "Machine",
    "PolicyRule",
    "Step",
    "Table",
    "every_role_decides",
    "ignoring",
]

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


PolicyRule: TypeAlias = Callable[[str, Mapping[str, RoleFacts]], RolePolicy]
"""The policy of the role of that name, among all roles of the job. Pure."""


def every_role_decides(name: str, roles: Mapping[str, RoleFacts]) -> RolePolicy:  # noqa: ARG001
    """Return the policy of a role whose every process must finish."""
    return RolePolicy()


Table: TypeAlias = Mapping[tuple[JobState, type[Event]], Arc]
"""State and type of event to row. No row means: the event must not come in that state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A state machine as a value: an immutable table and the rule for the roles' policies.

    Extend a shipped one: `replace(ALL_FINISH, name="mine", table={**ALL_FINISH.table, ...})`.
    A machine travels to the master by cloudpickle; planning a job checks it by `validate`.

    Attributes:
        name: For log lines.
        table: The rows; copied, so a later change of the argument does nothing.
        policy_of: What the ends of a role's processes mean.
    """

    name: str
    table: Table
    policy_of: PolicyRule = every_role_decides

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", MappingProxyType(dict(self.table)))

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (self.name, dict(self.table), self.policy_of))

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
            name: replace(role, policy=self.policy_of(name, roles))
            for name, role in roles.items()
        }
        return Job(
            attempt=attempt,
            roles=with_policies,
            max_restarts=max_restarts,
            restarts=restarts,
        )


def _rebuild(name: str, table: Table, policy_of: PolicyRule) -> Machine:
    return Machine(name=name, table=table, policy_of=policy_of)
