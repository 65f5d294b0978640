"""Nodes fall silent, return, repeat and die in any order: the machines come to an end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from headrace.framework.failure import Failure
from headrace.framework.machine import (
    ALL_FINISH,
    PYTORCH,
    TENSORFLOW,
    Command,
    FailJob,
    JobMachine,
    JobState,
    Machine,
    MasterStarted,
    NodeLost,
    NodeRegistered,
    ProcessEvent,
    ProcessFailed,
    ProcessFinished,
    ProcessState,
    ProcessStopped,
    RoleFacts,
    StartProcesses,
    StopProcesses,
)

BOOM = Failure(kind="user_code", message="boom")
STEPS, CALM_STEPS = 250, 400
GROUPS: dict[str, dict[str, int]] = {
    "ps mode": {"chief": 1, "worker": 2, "ps": 1, "evaluator": 1},
    "no chief": {"worker": 2, "ps": 1, "tensorboard": 1},
    "all-reduce": {"worker": 3, "tensorboard": 1},
}


@dataclass
class Node:
    """What a node process does with directives, as `headrace.framework.node.node` has it."""

    name: str
    of: int
    is_silent: bool = False
    process: ProcessState = ProcessState.NONE
    at: tuple[int, int] | None = None
    """Attempt and life of its process."""
    ending_reason: str | None = None
    reports: list[tuple[tuple[int, int], ProcessState]] = field(default_factory=list)

    def end(self, process: ProcessState) -> None:
        assert self.at is not None
        self.process = process
        self.reports.append((self.at, process))

    def take(self, directive: StartProcesses | StopProcesses) -> None:
        told = (directive.attempt, directive.life)
        reached = self.at or (0, 0)
        match directive:
            case StartProcesses():
                if reached < told:
                    self.at, self.process = told, ProcessState.RUNNING
            case StopProcesses():
                self.ending_reason = directive.ending_reason
                if reached[0] > directive.attempt:
                    return
                if reached < told or self.process is ProcessState.RUNNING:
                    self.at, self.process = max(reached, told), ProcessState.STOPPED
                self.end(self.process)


class World:
    """A master and its nodes; `step` does something at random, `calm` what remains."""

    def __init__(self, machine: Machine, roles: dict[str, int], seed: int) -> None:
        self.random = random.Random(seed)
        self.machine = machine
        self.roles = roles
        self.nodes = [
            Node(f"{role}-{i}", of=count) for role, count in roles.items() for i in range(count)
        ]
        self.open_master(attempt=1, restarts=0)

    def open_master(self, *, attempt: int, restarts: int) -> None:
        facts = {
            name: RoleFacts(planned_parallelism=count) for name, count in self.roles.items()
        }
        job = self.machine.initial_job(
            facts, max_restarts=5, attempt=attempt, restarts=restarts
        )
        self.master = JobMachine(self.machine, job)
        self.directives: dict[str, StartProcesses | StopProcesses] = {}
        self.failed: FailJob | None = None
        self.master.handle(MasterStarted(attempt=attempt))

    def step(self) -> None:
        node = self.random.choice(self.nodes)
        if self.random.random() < 0.01:
            job = self.master.job
            late = self.random.random() < 0.3  # it may not know of the last attempt
            self.open_master(attempt=max(1, job.attempt - late), restarts=job.restarts)
        elif self.random.random() < 0.1:
            self.change_silence(node)
        elif not node.is_silent and self.random.random() < 0.3:
            self.register(node)
        elif node.process is ProcessState.RUNNING and self.random.random() < 0.2:
            is_failure = self.random.random() < 0.85
            node.end(ProcessState.FAILED if is_failure else ProcessState.FINISHED)
        else:
            self.go_on(node)

    def calm(self) -> None:
        """Everybody is there and does what is told; running processes finish."""
        for _ in range(CALM_STEPS):
            for node in self.nodes:
                node.is_silent = False
                self.go_on(node)
                if self.master.job.state.is_terminal:
                    return
                if node.process is ProcessState.RUNNING and not node.reports:
                    told = self.directives.get(node.name)
                    if told is None or (told.attempt, told.life) == node.at:
                        node.end(ProcessState.FINISHED)

    def change_silence(self, node: Node) -> None:
        node.is_silent = not node.is_silent
        job = self.master.job
        if node.is_silent and job.is_registered(node.name, "one"):
            self.handle(
                NodeLost(
                    attempt=job.attempt,
                    node=node.name,
                    instance="one",
                    silent_s=9.0,
                    limit_s=8.0,
                )
            )

    def go_on(self, node: Node) -> None:
        """Let a node register, take its directive or deliver its next report."""
        if node.is_silent:
            return
        if not self.master.job.is_registered(node.name, "one"):
            self.register(node)
        elif node.reports and self.random.random() < 0.5:
            (attempt, life), process = node.reports.pop(0)
            if attempt == self.master.job.attempt:
                self.handle(_report(node.name, attempt, life, process))
        elif node.name in self.directives:
            node.take(self.directives[node.name])
            if self.random.random() < 0.7:  # else it is told again
                del self.directives[node.name]

    def register(self, node: Node) -> None:
        role, _, index = node.name.rpartition("-")
        is_failed = node.process is ProcessState.FAILED
        self.handle(
            NodeRegistered(
                attempt=self.master.job.attempt,
                node=node.name,
                instance="one",
                role=role,
                index=int(index),
                parallelism=node.of,
                host="host",
                process=node.process,
                process_attempt=None if node.at is None else node.at[0],
                process_life=0 if node.at is None else node.at[1],
                failure=BOOM if is_failed else None,
                ending_reason=node.ending_reason,
            )
        )

    def handle(self, event: NodeRegistered | NodeLost | ProcessEvent) -> None:
        before = self.master.job.nodes.keys()
        commands = self.master.handle(event)
        for name in before - self.master.job.nodes.keys():
            self.directives.pop(name, None)
        for command in commands:
            self.carry_out(command)

    def carry_out(self, command: Command) -> None:
        match command:
            case StartProcesses() | StopProcesses():
                for name in command.nodes:
                    self.directives[name] = command
            case FailJob():
                self.failed = command
            case _:
                pass


def _report(node: str, attempt: int, life: int, process: ProcessState) -> ProcessEvent:
    if process is ProcessState.FAILED:
        return ProcessFailed(
            attempt=attempt, life=life, node=node, instance="one", failure=BOOM
        )
    kind = ProcessFinished if process is ProcessState.FINISHED else ProcessStopped
    return kind(attempt=attempt, life=life, node=node, instance="one")


@pytest.mark.parametrize("machine", [ALL_FINISH, PYTORCH, TENSORFLOW], ids=lambda m: m.name)
@pytest.mark.parametrize("roles", GROUPS.values(), ids=GROUPS)
def test_every_disorder_comes_to_an_end(machine: Machine, roles: dict[str, int]) -> None:
    ends: dict[JobState, int] = {}
    for seed in range(150):
        world = World(machine, roles, seed)
        for _ in range(STEPS):
            world.step()
            if world.master.job.state.is_terminal:
                break
        world.calm()
        job = world.master.job
        assert job.state.is_terminal, (seed, job, list(world.master.history))
        if world.failed is not None and machine is TENSORFLOW:
            assert world.failed.node is not None
            role = world.failed.node.rpartition("-")[0]
            assert role not in ("evaluator", "tensorboard"), (seed, world.failed)
        ends[job.state] = ends.get(job.state, 0) + 1
    assert ends[JobState.FINISHED] > 10, ends
