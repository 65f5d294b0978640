"""Runs of workers on parameter servers, real processes, whose states are kept and restored.

What the servers hold at a moment is *noted* by a worker: it reads each variable from them and
writes the bits to a file of that name, beside the states of the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.framework.local import run_local
from headrace.framework.local_role import LocalRole
from headrace.framework.process import ProcessSpec, StateRef
from headrace.role import RoleLink
from headrace.role.state_format import decode_state
from headrace.tensorflow.ps_scope import is_on_server
from headrace.tensorflow.ps_server import ServerEntry, server_role
from headrace.tensorflow.variables import raw_variable
from headrace.testing.feed import TableFeed
from headrace.testing.worker import FedEntry, WorkerResult, read_result
from tests.unit.tensorflow.test_common_barrier import BarrierFeed

Bits = dict[str, list[Any]]
"""By a variable's place and name: its dtype and shape, and its bytes."""


@dataclass(kw_only=True)
class KeptEntry(FedEntry):
    """Feeds a worker with barriers in its rows, keeps its states, and begins with kept ones."""

    rows_before: tuple[dict[int, int], ...] = ({}, {})
    restored: Mapping[int, tuple[StateRef, ...]] = field(default_factory=dict)
    restored_parallelism: int | None = None

    def __call__(self, spec: ProcessSpec, link: RoleLink) -> None:
        if self.restored_parallelism is not None:
            spec = msgspec.structs.replace(
                spec,
                is_restored=True,
                states=self.restored.get(spec.index, ()),
                restored_parallelism=self.restored_parallelism,
            )
        super().__call__(spec, link)

    def _feed(self, index: int) -> TableFeed:
        assert self.tables is not None
        feed = BarrierFeed(self.tables[index], batch_rows=self.batch_rows)
        feed.rows_before = dict(self.rows_before[index])
        return feed

    def _write(self, node: str, recorder: Any, feed: TableFeed | None) -> None:
        super()._write(node, recorder, feed)
        assert feed is not None
        for checkpoint, state in feed.states:
            self.state_path(node, checkpoint).write_bytes(state)

    def state_path(self, node: str, checkpoint: int | None) -> Path:
        return self.result_dir / f"{node}.{checkpoint}.state"

    def state_of(self, index: int, checkpoint: int) -> dict[str, Any]:
        """Return what worker `index` kept at a checkpoint of this run."""
        return decoded(self.state_path(f"worker-{index}", checkpoint))

    def refs_of(self, checkpoint: int) -> list[StateRef]:
        """Return the states of all workers at a checkpoint of this run, to be restored."""
        assert self.tables is not None
        count = len(self.tables)
        paths = [self.state_path(f"worker-{n}", checkpoint) for n in range(count)]
        return [
            StateRef(path=str(path), index=n, parallelism=count) for n, path in enumerate(paths)
        ]

    def noted(self, name: str) -> dict[str, Bits]:
        """Return what a worker has noted under a name."""
        return dict(msgspec.msgpack.decode(note_path(self.result_dir, name).read_bytes()))


def run(entry: KeptEntry, *, ps: int) -> list[WorkerResult]:
    """Run a worker for each table, and servers; return when all processes have ended."""
    assert entry.tables is not None
    servers = server_role(ps)
    roles = {
        "worker": LocalRole(entry=entry, parallelism=len(entry.tables), has_port=True),
        "ps": LocalRole(
            entry=FedEntry(entry=ServerEntry(), result_dir=entry.result_dir),
            parallelism=ps,
            is_deciding=False,
            has_port=True,
            environment=servers.environment,
        ),
    }
    run_local(roles, timeout_s=150.0)
    return [read_result(entry.result_dir, f"worker-{n}") for n in range(len(entry.tables))]


def table_of(ids: list[int]) -> pa.Table:
    """Return rows with these ids, and an x that follows from the id."""
    x = np.array(ids, np.float32) / 100
    return pa.table({"x": x, "id": pa.array(ids, pa.int64())})


def decoded(path: Path) -> dict[str, Any]:
    return dict(decode_state(memoryview(path.read_bytes())))


def note_held(directory: Path, name: str, **owners: Any) -> None:
    """Note what variables hold, read from where they are; by their owner's name."""
    held = {owner: bits_of(each.variables) for owner, each in owners.items()}
    note_path(directory, name).write_bytes(msgspec.msgpack.encode(held))


def note_path(directory: Path, name: str) -> Path:
    return directory / f"{name}.bits"


def bits_of(variables: Sequence[Any]) -> Bits:
    return {f"{n} {v.name}": _bits(v.numpy()) for n, v in enumerate(variables)}


def kept_bits(state: Mapping[str, Any], *owners: str) -> dict[str, Bits]:
    """Return the bits of a state as `KeptEntry.noted` does; names are a bit shorter there."""
    objects = state["objects"]
    return {owner: {name: _bits(v) for name, v in objects[owner].items()} for owner in owners}


def _bits(value: Any) -> list[Any]:
    array = np.asarray(value)
    return [f"{array.dtype}{array.shape}", array.tobytes()]


def require_same(held: Mapping[str, Bits], kept: Mapping[str, Bits]) -> None:
    """Require equal bits, variable by variable in their order; names may differ by counts."""
    assert held.keys() == kept.keys()
    for owner, variables in held.items():
        assert len(variables) == len(kept[owner]) > 0
        pairs = zip(variables.items(), kept[owner].values(), strict=True)
        others = [name for (name, one), other in pairs if one != other]
        assert not others, f"variables of {owner} with other bits: {others}"


def servers_of(*owners: Any) -> set[int]:
    """Return the parameter servers that hold variables of these."""
    raw = [raw_variable(v) for each in owners for v in each.variables if is_on_server(v)]
    return {each.server for each in raw}


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """Collect what a logger says."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    yield told
    logger.removeHandler(handler)
