"""One machine at work: facts, history, and the check of every step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from headrace.errors import IllegalTransitionError
from headrace.framework.machine.commands import Command
from headrace.framework.machine.events import (
    Event,
    NodeEvent,
    NodeRegistered,
    ProcessEvent,
)
from headrace.framework.machine.facts import Job, JobState
from headrace.framework.machine.table import Machine

__all__ = ["JobMachine", "replay"]

_HISTORY_ENTRIES = 64


class JobMachine:
    """The only holder of the job's facts. Not thread-safe: one owner calls it.

    Attributes:
        job: The present facts.
        history: The last steps as text, oldest first.
        ignored: How many events were void: of an older attempt or life, of a node process that
            was replaced or must register again, or by a row that ignores them.
    """

    def __init__(self, machine: Machine, job: Job) -> None:
        self.job = job
        self.history: deque[str] = deque(maxlen=_HISTORY_ENTRIES)
        self.ignored = 0
        self._machine = machine

    def handle(self, event: Event) -> list[Command]:
        """Take one event and return what is to be done. Never blocks, does no I/O.

        Raises:
            IllegalTransitionError: The table has no row for the event in the present state, the
                event is of an attempt or life that has not begun, or a handler went to a state
                that its row does not name.
        """
        before = self.job
        if event.attempt < before.attempt or _is_replaced(before, event):
            self.ignored += 1
            return []
        arc = self._machine.table.get((before.state, type(event)))
        if arc is None or event.attempt > before.attempt:
            raise self._illegal(event)
        if isinstance(event, ProcessEvent) and event.life != (known := _life(before, event)):
            if event.life > known:
                raise self._illegal(event)
            self.ignored += 1
            return []
        if arc.handler is None:
            self.ignored += 1
            return []
        after, commands = arc.handler(before, event)
        if after.state not in arc.targets:
            raise self._illegal(event, target=after.state)
        self.job = after
        self.history.append(f"{before.state.value} --{_text(event)}--> {after.state.value}")
        return commands

    def _illegal(self, event: Event, target: JobState | None = None) -> IllegalTransitionError:
        text = f"{_text(event)} of attempt {event.attempt}"
        if target is not None:
            text = f"{text} with target {target.value}"
        state = f"{self.job.state.value} (attempt {self.job.attempt}, machine "
        return IllegalTransitionError(
            event=text,
            state=f"{state}{self._machine.name!r})",
            history=tuple(self.history),
        )


def replay(machine: Machine, job: Job, events: Iterable[Event]) -> JobMachine:
    """Return the machine after `events`, beginning with the facts `job`.

    Raises:
        IllegalTransitionError: As `JobMachine.handle`.
    """
    at_work = JobMachine(machine, job)
    for event in events:
        at_work.handle(event)
    return at_work


def _is_replaced(job: Job, event: Event) -> bool:
    """Whether the event is about a node process that is not, or no longer, registered."""
    if not isinstance(event, NodeEvent) or isinstance(event, NodeRegistered):
        return False
    return not job.is_registered(event.node, event.instance)


def _life(job: Job, event: ProcessEvent) -> int:
    return job.nodes[event.node].life


def _text(event: Event) -> str:
    name = type(event).__name__
    return f"{name}({event.subject})" if event.subject else name
