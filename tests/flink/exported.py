"""What is in a directory of `export_to`, and what is in Flink's checkpoints beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyflink.table import StreamTableEnvironment

from headrace.role.state_format import decode_state

MAGIC = b"HRSTATE\1"
CHECKPOINTS = {
    "execution_checkpointing_interval": "300 ms",
    "execution_checkpointing_tolerable__failed__checkpoints": "1000",
}
ALL_KEPT = {"execution_checkpointing_num__retained": "1000"}


def add_endless_numbers(t_env: StreamTableEnvironment) -> None:
    """Register the endless table `numbers`: `id` at random, and padding, so that rows are wide.

    Random, so that checkpoints do not hold what is still to come.
    """
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.min'='0', 'fields.id.max'='9999', "
        "'fields.padding.length'='1000', 'rows-per-second'='300', 'scan.parallelism'='1')"
    )


def ids_in(served: Path, suffix: str = ".pt") -> list[int]:
    """Checkpoints whose models are there, from what can be seen; none without a directory."""
    if not served.exists():
        return []
    names = [each.name for each in served.iterdir() if not each.name.startswith(".")]
    pattern = re.compile(rf"checkpoint-(\d+){re.escape(suffix)}")
    found = (pattern.fullmatch(name) for name in names)
    return sorted(int(match[1]) for match in found if match)


def objects_in(checkpoints: Path, checkpoint_id: int) -> dict[str, Any]:
    """What `ctx.checkpointed` has named, in the one state with a model of a checkpoint.

    Args:
        checkpoints: Flink's directory for checkpoints, of one job.
        checkpoint_id: Flink's number.
    """
    (checkpoint,) = checkpoints.glob(f"*/chk-{checkpoint_id}")
    found = []
    for file in checkpoint.iterdir():
        content = file.read_bytes()
        for match in re.finditer(re.escape(MAGIC), content):
            state = decode_state(memoryview(bytearray(content[match.start() :])))
            found += [state["objects"]] if "model" in state["objects"] else []
    (objects,) = found
    return dict(objects)
