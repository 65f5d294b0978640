"""A checkpoint of a role that had another number of processes.

Flink splits the states among the processes that there are now, as it does with list state: each
state goes to one process, which may get several, or none. What all workers held alike is in the
state of the first one, and comes to all from there.

=============================  ================================================================
part of a state                goes to
=============================  ================================================================
objects held alike             every process
variables on servers           the servers, from the first process; what it has beside them
                               comes to every process
objects of a process alone     nobody: refused
`ctx.state`                    the process that got the state, as `ctx.merge_state` says
random generators              the process that got the state; of several, the first one's
rows of a step not yet made    the process that got the state; of several: refused
rows of passes, held-out rows  nobody: refused
=============================  ================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.errors import PlanError, UsageError
from headrace.framework.process import ProcessSpec, StateRef

__all__ = ["Rescaled", "is_rescaled"]

_STEPS = "steps"
_KEPT_NOTHING = b"\0"
_UNTOUCHED = b"\1"
_Values = dict[str, Any]


def is_rescaled(spec: ProcessSpec) -> bool:
    """Return whether the restored checkpoint is one of another number of processes."""
    before = {each.parallelism for each in spec.states} | {spec.restored_parallelism}
    return bool(before - {None, spec.parallelism})


class Rescaled:
    """The states that Flink has given to one process.

    Thread model: one thread at a time.

    Raises:
        PlanError: They hold rows of the input, which cannot be shared out.

    Args:
        spec: Who the process is.
        parts: Where each state was, its memory, and what is in it; those of processes that had
            had no row are left out.

    Attributes:
        object_names: The objects in those states, or held alike with that of the first process.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        parts: Sequence[tuple[StateRef, memoryview, Mapping[str, Any]]],
    ) -> None:
        self._role = spec.role
        self._parallelism = spec.parallelism
        before = [spec.restored_parallelism, *(each.parallelism for each in spec.states)]
        self._before = next(each for each in before if each not in (None, spec.parallelism))
        self._parts = sorted(parts, key=lambda part: part[0].index)
        self._is_untouched = bool(spec.states) and not parts
        self._is_merged = False
        contents = [content for _, _, content in self._parts]
        self._keys = {key for content in contents for key in content.get("values", {})}
        self.object_names = frozenset(
            name
            for content in contents
            for name in (*content.get("objects", ()), *content.get("shared", ()))
        )
        self._require_no_rows()

    @property
    def generators(self) -> Any:
        """States of random generators to go on with; None for none."""
        found = [content.get("generators") for _, _, content in self._parts]
        return next((each for each in found if each is not None), None)

    def merge(self, merge: Callable[[list[_Values]], _Values]) -> _Values:
        """Return what `merge` makes of the values of the states that came here.

        Raises:
            UsageError: It makes no mapping of them.
        """
        merged: object = merge([content.get("values", {}) for _, _, content in self._parts])
        if not isinstance(merged, Mapping):
            msg = (
                f"The function given to ctx.merge_state returned {type(merged).__name__}: it "
                "must return the ctx.state to go on with, a mapping such as {'rows': 0}"
            )
            raise UsageError(msg)
        self._is_merged = True
        return dict(merged)

    def require_merged(self) -> None:
        """Refuse to go on with values of which nobody has said what becomes.

        Raises:
            PlanError: There are some.
        """
        if self._keys and not self._is_merged:
            keys = ", ".join(sorted(map(repr, self._keys)))
            msg = (
                f"The restored checkpoint holds ctx.state of {self._before} processes of role "
                f"{self._role!r} (with {keys}), and the job runs "
                f"{self._parallelism}. Say what becomes of it by ctx.merge_state(function), "
                "before ctx.state is used and the input is read; or restore the job with the "
                "same parallelism"
            )
            raise PlanError(msg)

    def require_all_shared(self) -> None:
        """Refuse objects that each process had by itself.

        Raises:
            PlanError: There are some; the text names them.
        """
        own = {
            name
            for _, _, content in self._parts
            for name in content.get("objects", {})
            if name not in {*content.get("shared", ()), *content.get("served", ())}
        }
        if own:
            msg = (
                f"The restored checkpoint holds {', '.join(sorted(map(repr, own)))} of each of "
                f"{self._before} processes of role {self._role!r}, and the job runs "
                f"{self._parallelism}: only what was given to ctx.data_parallel as well is the "
                "same in all of them. Give it there, or keep values in ctx.state and merge "
                "them by ctx.merge_state; or restore the job with the same parallelism"
            )
            raise PlanError(msg)

    def release(self) -> None:
        """Let go of the states, once all that is wanted of them was taken. Idempotent."""
        self._parts = []

    def _require_no_rows(self) -> None:
        kept = {name for _, _, content in self._parts for name in content.get("parts", {})}
        if kept - {_STEPS}:
            msg = (
                f"The restored checkpoint holds rows of each of {self._before} processes of "
                f"role {self._role!r}, for later passes or as held-out ones, and the job runs "
                f"{self._parallelism}. Restore it with the same parallelism"
            )
            raise PlanError(msg)

    def memory_to_spread(self) -> memoryview:
        """Return what the other processes need to know, if this is the first one."""
        first = [memory for ref, memory, _ in self._parts if ref.index == 0]
        if first:
            return first[0]
        return memoryview(_UNTOUCHED if self._is_untouched else _KEPT_NOTHING)

    def is_untouched(self, spread: memoryview) -> bool:
        """Return whether no process had had a row, so that all begin as at the first start."""
        return bytes(spread[:2]) == _UNTOUCHED

    def is_nothing(self, spread: memoryview) -> bool:
        """Return whether the first process had kept nothing."""
        return bytes(spread[:2]) == _KEPT_NOTHING

    def steps(self, common: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts to go on with: what all held alike, and what came here.

        Args:
            common: The parts that the first process had kept: each a pair of what all held
                alike and of its own.

        Raises:
            PlanError: Rows of several processes wait for a step here, with gradients.
        """
        parts = {}
        for name, (alike, _) in common.items():
            owns = [content.get("parts", {}).get(name) for _, _, content in self._parts]
            open_ones = [own for _, own in filter(None, owns) if own.get("pending_rows")]
            if len(open_ones) > 1 and not any("gradients" in own for own in open_ones):
                rows = sum(own["pending_rows"] for own in open_ones)  # skipped by their loops
                open_ones = [{**open_ones[0], "pending_rows": rows}]
            if len(open_ones) > 1:
                rows = sum(own["pending_rows"] for own in open_ones)
                msg = (
                    f"The restored checkpoint holds {rows} rows of several processes of role "
                    f"{self._role!r} that no step was made of yet, and the job runs "
                    f"{self._parallelism} in place of {self._before}: gradients of several "
                    "cannot go on in one. Step before the next batch is asked for, or restore "
                    "the job with at least as many processes"
                )
                raise PlanError(msg)
            parts[name] = (alike, open_ones[0] if open_ones else {})
        return parts
