"""What the master knows about the ML cluster, as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum

from headrace.errors import PlanError

__all__ = ["Job", "JobState", "NodeFacts", "ProcessState", "RoleFacts", "RolePolicy"]


class JobState(Enum):
    """Where the ML cluster stands."""

    GATHERING = "GATHERING"
    RUNNING = "RUNNING"
    RECOVERING = "RECOVERING"
    STOPPING = "STOPPING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        """Whether no event can lead out of this state."""
        return self in (JobState.FINISHED, JobState.FAILED)


class ProcessState(Enum):
    """What is known about a node's algorithm process in the present attempt.

    RUNNING means: the node was told to run it and has not reported its end.
    """

    NONE = "none"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePolicy:
    """What the end of a role's processes means for the job.

    Attributes:
        decides_end: The job ends with success once every process of every deciding role has
            finished; processes of other roles are stopped then.
        first_decides: In a deciding role only the process of node 0 counts for that.
        is_helper: A failure of such a process is noted and harms nobody; a silent node of the
            role is not missed.
        restarts_alone: A failed process is started again while the others go on, up to
            `am.max_restarts` times in an attempt; a silent node is waited for likewise. Then
            a helper stays failed, and any other process fails the job.
        restarts_finished: A restart of the group runs finished processes of the role again (an
            all-reduce group needs them) instead of leaving them finished.
    """

    decides_end: bool = True
    first_decides: bool = False
    is_helper: bool = False
    restarts_alone: bool = False
    restarts_finished: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleFacts:
    """One role.

    Attributes:
        planned_parallelism: Nodes in the plan; used in messages only.
        parallelism: Nodes at run time, known from the first registration; None until then.
        has_input: Whether rows flow into the role. A group with such a role cannot be started
            again in place: rows already taken would be missing.
        policy: What its ends mean.
    """

    planned_parallelism: int
    parallelism: int | None = None
    has_input: bool = False
    policy: RolePolicy = field(default_factory=RolePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFacts:
    """One registered node.

    Attributes:
        role: Its role.
        index: Its number in the role, from 0.
        host: Where it runs, as peers can reach it.
        port: The TCP port that it keeps for its process; None if its role has none.
        instance: Identity of the node process; a new one means that the node was started again.
        process: State of its algorithm process in the present attempt.
        life: Number of that process within the attempt, from 0: how often it was started again
            alone.
    """

    role: str
    index: int
    host: str
    port: int | None = None
    instance: str
    process: ProcessState = ProcessState.NONE
    life: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Everything that decisions are made from.

    Attributes:
        state: Where the cluster stands.
        attempt: Number of the present start of the group, from 1.
        roles: Every planned role.
        nodes: Every registered node, by name ("worker-0").
        max_restarts: Group restarts before the job fails, and restarts of one process alone.
        restarts: Group restarts so far.
        reason: Why the job stops, failed or ended; None while it runs.
        lost: Nodes of this attempt that fell silent and have not come back. One that is in
            `nodes` as well is waited for while the others go on.
    """

    state: JobState = JobState.GATHERING
    attempt: int
    roles: Mapping[str, RoleFacts]
    nodes: Mapping[str, NodeFacts] = field(default_factory=dict)
    max_restarts: int
    restarts: int = 0
    reason: str | None = None
    lost: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not any(role.policy.decides_end for role in self.roles.values()):
            msg = (
                f"No role of {sorted(self.roles)} decides when the job ends: it would run for "
                "ever. Give one role of the state machine RolePolicy(decides_end=True)."
            )
            raise PlanError(msg)

    @property
    def is_restartable_in_place(self) -> bool:
        """Whether the master may restart the group: batch mode, no role has an input."""
        return not any(role.has_input for role in self.roles.values())

    @property
    def expected(self) -> int | None:
        """Number of nodes the job needs; None while a role has not said its parallelism."""
        total = 0
        for role in self.roles.values():
            if role.parallelism is None:
                return None
            total += role.parallelism
        return total

    @property
    def is_gathered(self) -> bool:
        """Whether every expected node is registered."""
        return len(self.nodes) == self.expected

    @property
    def missing(self) -> list[str]:
        """Names of expected nodes that are not registered; "role-*" for an unseen role."""
        names = []
        for name, role in self.roles.items():
            if role.parallelism is None:
                names.append(f"{name}-*")
                continue
            every = (f"{name}-{index}" for index in range(role.parallelism))
            names.extend(node for node in every if node not in self.nodes)
        return names

    @property
    def running(self) -> tuple[str, ...]:
        """Names of the nodes whose process has not ended, in a stable order."""
        return self._named(ProcessState.RUNNING)

    @property
    def cluster(self) -> dict[str, tuple[str, ...]]:
        """Hosts of every role in the order of the index; finished nodes included."""
        hosts: dict[str, list[tuple[int, str]]] = {name: [] for name in self.roles}
        for node in self.nodes.values():
            hosts[node.role].append((node.index, node.host))
        return {name: tuple(host for _, host in sorted(pairs)) for name, pairs in hosts.items()}

    @property
    def ports(self) -> dict[str, tuple[int, ...]]:
        """Ports of every role whose nodes have one, in the order of the index."""
        ports: dict[str, list[tuple[int, int]]] = {}
        for node in self.nodes.values():
            if node.port is not None:
                ports.setdefault(node.role, []).append((node.index, node.port))
        return {name: tuple(port for _, port in sorted(pairs)) for name, pairs in ports.items()}

    @property
    def awaited(self) -> list[str]:
        """Names of silent nodes that the job goes on without, but not for ever."""
        return [
            name
            for name in sorted(self.lost)
            if name in self.nodes and not self.policy(name).is_helper
        ]

    def is_registered(self, node: str, instance: str) -> bool:
        """Whether this node process need not register: it has, and was not silent since."""
        known = self.nodes.get(node)
        return known is not None and known.instance == instance and node not in self.lost

    def policy(self, node: str) -> RolePolicy:
        """Return the policy of a registered node's role."""
        return self.roles[self.nodes[node].role].policy

    def keeps_result(self, node: str) -> bool:
        """Whether the node has finished and a restart of the group leaves it so."""
        is_done = self.nodes[node].process is ProcessState.FINISHED
        return is_done and not self.policy(node).restarts_finished

    def is_decided(self) -> bool:
        """Whether every process that decides has finished."""
        return all(
            self._has_finished(name, role)
            for name, role in self.roles.items()
            if role.policy.decides_end
        )

    def with_node(self, name: str, facts: NodeFacts) -> Job:
        """Return the job with the facts of one node replaced."""
        return replace(self, nodes={**self.nodes, name: facts}, lost=self.lost - {name})

    def with_lost(self, name: str) -> Job:
        """Return the job with one node silent; its facts are kept."""
        return replace(self, lost=self.lost | {name})

    def without_node(self, name: str) -> Job:
        """Return the job with one node gone from the registered ones."""
        rest = {each: facts for each, facts in self.nodes.items() if each != name}
        return replace(self, nodes=rest, lost=self.lost | {name})

    def with_return(self, name: str) -> Job:
        """Return the job with one node no longer silent."""
        return replace(self, lost=self.lost - {name}) if name in self.lost else self

    def with_process(self, name: str, process: ProcessState) -> Job:
        """Return the job with the process state of one node replaced."""
        return self.with_node(name, replace(self.nodes[name], process=process))

    def with_first_lives(self, names: tuple[str, ...]) -> Job:
        """Return the job with these nodes at the beginning of an attempt."""
        first = {
            name: replace(self.nodes[name], process=ProcessState.NONE, life=0) for name in names
        }
        return replace(self, nodes={**self.nodes, **first})

    def _has_finished(self, name: str, role: RoleFacts) -> bool:
        count = 1 if role.policy.first_decides else role.parallelism
        if count is None:
            return False
        nodes = (self.nodes.get(f"{name}-{index}") for index in range(count))
        return all(node and node.process is ProcessState.FINISHED for node in nodes)

    def _named(self, process: ProcessState) -> tuple[str, ...]:
        return tuple(name for name, node in self.nodes.items() if node.process is process)
