"""Common rounds without a framework: threads that add up lists of numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from headrace.role.rounds import Reduction, Rounds, Tallies

LIMIT_S = 10.0


class Sum:
    """Adds the lists of threads, and keeps the sums."""

    def __init__(self, world_size: int = 2) -> None:
        self.world_size = world_size
        self.sums: list[list[float]] = []
        self._given: list[list[float]] = []
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(world_size, action=self._add)

    def __call__(self, numbers: list[float]) -> list[float]:
        with self._lock:
            self._given.append(numbers)
        self._barrier.wait(LIMIT_S)
        total = self.sums[-1]
        self._barrier.wait(LIMIT_S)
        return total

    def give_up(self) -> None:
        """End the waits of the others: a thread has failed."""
        self._barrier.abort()

    def _add(self) -> None:
        if self._given:
            self.sums.append([sum(each) for each in zip(*self._given, strict=True)])
            self._given = []


class Trainer(Rounds):
    """Its model is one number, to which each step adds the mean of all workers' rows."""

    def __init__(self, add: Sum, reduction: Reduction = "mean") -> None:
        super().__init__(world_size=add.world_size, reduction=reduction, idle_after_s=0.0)
        self.model = 0.0
        self.shadow_steps = 0
        self._sum = add
        self._total = 0.0

    def step(self, rows: Sequence[float]) -> None:
        self.count(len(rows))
        taken = self._take_rows()
        mine = Tallies(rows=taken, active=1, rates=(0.5,))
        self._vote(mine)
        gradient = sum(rows) / (len(rows) if self._is_mean else 1)
        totals = self._add_all(mine, gradient * self._weight_of(taken))
        self.model += self._total / self._divisor_of(totals)
        self.steps += 1

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def _add_all(self, mine: Tallies, gradient: float) -> Tallies:
        *tallies, self._total = self._sum([*mine.to_list(), gradient])
        return Tallies.from_list(tallies)

    def _add_numbers(self, numbers: list[float]) -> list[float]:
        return self._sum(numbers)

    def _add_nothing(self, mine: Tallies) -> Tallies:
        return self._add_all(mine, 0.0)

    def _step_as_shadow(self, totals: Tallies) -> None:
        self.model += self._total / self._divisor_of(totals)
        self.shadow_steps += 1
