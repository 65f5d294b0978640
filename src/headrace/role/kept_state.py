"""What of a process goes into Flink's checkpoints, and comes out of one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from headrace.errors import PlanError, UsageError
from headrace.exchange import Feed, StateFile
from headrace.framework.process import ProcessSpec
from headrace.role.fullness import says_full
from headrace.role.generators import Generators
from headrace.role.rescaled import Rescaled, is_rescaled
from headrace.role.restored_files import decode_own, read_states
from headrace.role.state_format import encode_state
from headrace.role.taking import require_stateful, take_state

__all__ = ["KeptState"]

_NO_OBJECTS: Mapping[str, Any] = {}


class KeptState:
    """The state of one process: the user's own values, and the objects that he has named.

    What a checkpoint holds is read at once; `values` has its part then, and `name` gives each
    object and the random number generators theirs; where nothing is named, the generators get
    theirs before the input is read. From then on `capture` takes the state.

    Thread model: one thread at a time, the one that asks for rows.

    Args:
        spec: Who the process is, and where what the checkpoint holds for it lies.
        generators: Are kept beside whatever else is.

    Raises:
        PlanError: What the checkpoint holds cannot be read.
        ExchangeError: What it holds cannot be opened.

    Attributes:
        values: `ctx.state`.
        is_asked_for: Whether the user's function has asked for `values`.
    """

    def __init__(self, spec: ProcessSpec, generators: Generators) -> None:
        self._generators = generators
        self._node = spec.node
        self._is_first = spec.index == 0
        self._is_restored = spec.is_restored
        self._objects: dict[str, Any] | None = None
        self._given: Mapping[str, Any] = {}
        self._shared: frozenset[str] = frozenset()
        self._has_restored_objects = False
        self._is_alone = spec.parallelism == 1
        parts = read_states(spec)
        self._is_untouched = bool(spec.states) and not parts
        self._rescaled = Rescaled(spec, parts) if is_rescaled(spec) else None
        self._has_restored = bool(parts) or self._rescaled is not None
        self._memory: memoryview | None = None
        self._restored: Mapping[str, Any] = {}
        if parts and self._rescaled is None:
            _, self._memory, self._restored = parts[0]
        self.values: dict[str, Any] = self._restored.get("values", {})
        self._parts: dict[str, Callable[[], Any]] = {}
        self.is_asked_for = False

    @property
    def misses_rows(self) -> bool:
        """Whether a model that is now trained lacks rows from before a restored checkpoint."""
        return self.began_behind_rows and not self._has_restored_objects

    @property
    def began_behind_rows(self) -> bool:
        """Whether this process got rows before a restored checkpoint."""
        return self._is_restored and not self._is_untouched

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to keep: the rows of an input alone are nothing."""
        if self._objects is not None or self.values:
            return False
        return not (self.is_asked_for and "input" in self._parts)

    @property
    def has_objects(self) -> bool:
        """Whether objects were named."""
        return self._objects is not None

    @property
    def named(self) -> Mapping[str, Any]:
        """What was named, by its name."""
        return self._given

    def state_of(self, name: str) -> Any:
        """Return the state of a named object as it is now; may share its memory."""
        assert self._objects is not None
        return self._objects[name].state_dict()

    @property
    def has_restored(self) -> bool:
        """Whether the restored checkpoint holds a state of this process."""
        return self._has_restored

    @property
    def restored_epoch(self) -> int:
        """The pass over the input that the restored checkpoint was in, from 0."""
        place = self.restored_part("input", None)
        return 0 if place is None else int(place.epoch)

    def keep_part(self, name: str, part: Callable[[], Any]) -> None:
        """Keep what `part` returns beside the rest, from now on; its restored value goes."""
        self._parts[name] = part
        self._restored.get("parts", {}).pop(name, None)

    def restored_part(self, name: str, default: Any) -> Any:
        """Return what `keep_part` kept under that name at the restored checkpoint."""
        return self._restored.get("parts", {}).get(name, default)

    def name(
        self,
        objects: Mapping[str, Any],
        spread: Callable[[memoryview], memoryview],
        stateful: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda each: each,
    ) -> None:
        """Name what is kept, and restore it if there is something to restore.

        Args:
            objects: By name.
            spread: Returns the argument that it has in the first process of the role. Called
                in all of them, if the restored checkpoint holds objects that they share.
            stateful: Returns what has the methods of a state for each.

        Raises:
            UsageError: It was called before.
            ConfigError: An object has no state to give or to take.
            PlanError: The restored state has other names, or an object does not take its own.
        """
        if self._objects is not None:
            msg = "ctx.checkpointed was called before; name all objects in one call"
            raise UsageError(msg)
        found = stateful(objects)
        for name, each in found.items():
            require_stateful(name, each)
        self._given = dict(objects)
        self._objects = dict(found)
        if self._rescaled is not None:
            self._restore_rescaled(self._rescaled, spread)
        elif self.began_behind_rows:
            self._restore(spread)

    def merge(self, merge: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        """Set `values` to what `merge` makes of those of a role of another size.

        Raises:
            UsageError: It makes no mapping of them.
        """
        if self._rescaled is not None:
            self.values = self._rescaled.merge(merge)

    def require_merged(self) -> None:
        """Refuse to use values of a role of another size that were not merged.

        Raises:
            PlanError: There are some.
        """
        if self._rescaled is not None:
            self._rescaled.require_merged()

    def share(self, *objects: object) -> None:
        """Say that all processes of the role hold these alike whenever a state is captured.

        Those that were named are kept by the first process only.
        """
        self._shared = frozenset(
            name
            for name, each in self._given.items()
            if any(each is other for other in objects)
        )

    @property
    def _served(self) -> list[str]:
        """Names of what the first process keeps for all, beside what each has of its own.

        Such an object has `for_others`: it returns what others need of the first one's state.
        """
        return [name for name, each in (self._objects or {}).items() if _is_served(each)]

    def require_all_named(self) -> None:
        """Refuse to read on behind a checkpoint of which a part is restored by nobody.

        Generators that `name` has not restored are restored here. The checkpoint's files are
        let go of then: nothing more is restored from them.

        Raises:
            PlanError: It holds objects, and none was named, or values of a role of another
                size, and they were not merged.
        """
        self.require_merged()
        kept = self._held_names
        if self._rescaled is not None:
            kept = self._rescaled.object_names or None
        if kept is not None and self._objects is None:
            msg = (
                f"The restored checkpoint holds {_names(kept)} of {self._node}, and "
                "ctx.checkpointed was not called before the input was read: name them there, "
                "or start the job without restoring it"
            )
            raise PlanError(msg)
        if self._objects is None:
            self._restore_generators()
        self._memory = None
        if self._rescaled is not None:
            self._rescaled.release()

    def capture(self, feed: Feed, checkpoint_id: int | None) -> StateFile | None:
        """Copy the state into shared memory.

        Args:
            feed: Whose memory; the file goes to an acknowledgement of it.
            checkpoint_id: Whose barrier is acknowledged; None: every later one.

        Returns:
            None if there is nothing to keep, or nobody wants it: markers of the operator have
            negative ids, and a checkpoint may have been aborted.

        Raises:
            UsageError: A part of it cannot be pickled; the text names it.
            ExchangeError: There is not enough memory.
            Exception: What pickling raised, if that says that memory or a disk is full.
        """
        if self.is_empty:
            return None
        if checkpoint_id is not None and (checkpoint_id < 0 or feed.is_aborted(checkpoint_id)):
            return None
        content = self._content()
        try:
            encoded = encode_state(content)
        except Exception as exc:
            if says_full(exc):
                raise
            raise _not_pickled(content, exc) from exc
        file = feed.take_state(encoded.size_bytes)
        with file.memory as memory:
            encoded.write_to(memory)
        return file

    def expect_capture(self, feed: Feed) -> None:
        """Tell the feed how large the state is, so that its memory is made before a barrier.

        The state is looked at for that and not copied. It is left alone where looking costs as
        much as capturing: where it lies on parameter servers, or an object says `is_costly`.
        """
        objects = (self._objects or {}).values()
        is_costly = any(getattr(each, "is_costly", False) for each in objects)
        if self.is_empty or self._served or is_costly:
            return
        try:
            size_bytes = encode_state(self._content()).size_bytes
        except Exception:  # noqa: BLE001 - the capture will tell it
            return
        feed.expect_state(size_bytes)

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "values": self.values,
            "generators": self._generators.states(),
            "parts": {
                **self._restored.get("parts", {}),
                **{name: part() for name, part in self._parts.items()},
            },
        }
        if self._objects is not None:
            content["objects"] = {
                name: each.state_dict()
                for name, each in self._objects.items()
                if self._is_first or name not in self._shared
            }
            content["shared"] = sorted(self._shared)
            content["served"] = sorted(self._served)
        return content

    def _restore(self, spread: Callable[[memoryview], memoryview]) -> None:
        kept = self._restored.get("objects", _NO_OBJECTS)
        shared = self._restored.get("shared", ())
        self._require_named(self._held_names or ())
        if shared and not self._is_alone:
            assert self._memory is not None
            memory = spread(self._memory)
            if not self._is_first:
                of_first = decode_own(memory, self._node)["objects"]
                kept = {**kept, **{name: of_first[name] for name in shared}}
        self._take(kept, self._restored.get("parts", {}))

    def _restore_rescaled(
        self, rescaled: Rescaled, spread: Callable[[memoryview], memoryview]
    ) -> None:
        """Take what all held alike from the first process; collective, also for new ones."""
        rescaled.require_all_shared()
        own = rescaled.memory_to_spread()
        memory = own if self._is_alone else spread(self._for_others(own))
        if rescaled.is_untouched(memory):
            self._is_untouched = True
            return
        memory = own if self._is_first else memory
        first = {} if rescaled.is_nothing(memory) else decode_own(memory, self._node)
        kept = first.get("objects", _NO_OBJECTS)
        self._require_named(kept)
        self._take(kept, rescaled.steps(first.get("parts", {})))

    def _for_others(self, memory: memoryview) -> memoryview:
        """Return the state in `memory`, of the first process, without what only that needs."""
        served = {name: (self._objects or {})[name] for name in self._served}
        if not self._is_first or len(memory) <= 1 or not served:
            return memory
        content = decode_own(memory, self._node)
        objects = dict(content.get("objects", _NO_OBJECTS))
        for name in objects.keys() & served.keys():
            objects[name] = served[name].for_others(objects[name])
        encoded = encode_state({**content, "objects": objects})
        smaller = memoryview(bytearray(encoded.size_bytes))
        encoded.write_to(smaller)
        return smaller

    @property
    def _held_names(self) -> Collection[str] | None:
        """Names in the restored state, with those that the first process keeps for all."""
        kept = self._restored.get("objects")
        return None if kept is None else {*kept, *self._restored.get("shared", ())}

    def _require_named(self, held: Collection[str]) -> None:
        assert self._objects is not None
        if set(held) != self._objects.keys():
            msg = (
                f"ctx.checkpointed names {_names(self._objects)}, and the restored checkpoint "
                f"holds {_names(held)} of {self._node}: name the same objects as the program "
                "that wrote it, or start the job without restoring it"
            )
            raise PlanError(msg)

    def _restore_generators(self) -> None:
        """Give the generators what the checkpoint holds for this process, and drop it there."""
        own = self._restored
        states = own.get("generators") if self._rescaled is None else self._rescaled.generators
        if states is not None:
            self._generators.restore(states)
        self._restored = {name: each for name, each in own.items() if name != "generators"}

    def _take(self, kept: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
        assert self._objects is not None
        for name, each in self._objects.items():
            take_state(name, each, kept[name])
        self._restore_generators()
        self._has_restored_objects = bool(kept)
        self._restored = {"parts": parts}
        self._memory = None


def _is_served(each: object) -> bool:
    return callable(getattr(each, "for_others", None))


def _not_pickled(content: Mapping[str, Any], cause: Exception) -> UsageError:
    places = [(f"ctx.state[{key!r}]", value) for key, value in content["values"].items()]
    places += [
        (f"the state_dict of {key!r}", value)
        for key, value in content.get("objects", _NO_OBJECTS).items()
    ]
    where = [place for place, value in places if not _can_be_pickled(value)]
    return UsageError(
        f"The state cannot go into Flink's checkpoint: {', '.join(where) or 'it'} cannot be "
        f"pickled: {type(cause).__name__}: {cause}. Keep values there, not open files, locks, "
        "connections or generators"
    )


def _can_be_pickled(value: object) -> bool:
    try:
        encode_state(value)
    except Exception:  # noqa: BLE001 - that it raises is the answer
        return False
    return True


def _names(objects: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(objects))) or "no objects"
