"""What a process of a run leaves behind, however it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from headrace.framework.stopping import StopRequestedExit
from headrace.role import RoleContext, RoleEntry
from headrace.testing.worker import FedEntry, WorkerResult, read_result
from tests.unit.role.doubles import FakeLink, spec_in

TABLE = pa.table({"n": [1, 2, 3]})


def copy(ctx: RoleContext) -> None:
    for batch in ctx.batches():
        ctx.emit(batch)
        ctx.report(last=batch["n"][-1])


def stop_once(monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
    """Raise at the first call what the handler of SIGTERM does: it ignores later signals."""
    call, calls = getattr(where, name), []

    def stop_at_first(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) == 1:
            raise StopRequestedExit
        return call(*args, **options)

    monkeypatch.setattr(where, name, stop_at_first)


@pytest.mark.parametrize(
    ("where", "name"),
    [(pa.ipc, "new_file"), (msgspec.json, "encode"), (Path, "chmod")],
    ids=["rows", "notes", "rename"],
)
def test_a_stop_while_results_are_written_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    spec = spec_in(tmp_path, index=0)
    fed = FedEntry(
        entry=RoleEntry(copy), result_dir=results, tables=[TABLE], output_schema=TABLE.schema
    )
    stop_once(monkeypatch, where, name)
    with pytest.raises(StopRequestedExit):
        fed(spec, FakeLink())
    assert read_result(results, spec.node) == WorkerResult(
        rows_in=3, history=({"last": 3.0},), emitted=TABLE
    )
    assert {each.name for each in results.iterdir()} == {
        f"{spec.node}.json",
        f"{spec.node}.arrow",
    }
