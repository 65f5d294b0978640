"""A process with rows: hands each batch back and counts; see the package."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from headrace.exchange import Barrier, Batch, Channel, End, Watermark

from .lines import pause


def run(socket: str, spec: dict[str, Any]) -> None:
    pause(spec.get("connects_after_s", 0))
    channel = Channel.connect(socket, attempt=1, connect_timeout_s=30)
    died = Path(spec["dir"]) / "died"
    counts = {"rows": 0, "total": 0, "barriers": 0, "watermarks": 0}
    while not isinstance(item := channel.receive(timeout_s=None), End):
        if isinstance(item, Batch):
            counts["rows"] += item.columns.num_rows
            counts["total"] += sum(item.columns.column(0).to_pylist())
            if channel.output_schema is not None:
                channel.send(item.columns, item.timestamps_ms)
            if _dies(counts, spec) and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if counts["rows"] >= spec.get("hangs_at", sys.maxsize):
                pause(1000)
            if counts["rows"] >= spec.get("waits_at", sys.maxsize):
                (Path(spec["dir"]) / "waits").touch()
                while not (Path(spec["dir"]) / "go-on").exists():
                    pause(0.01)
            if counts["rows"] >= spec.get("ends_at", sys.maxsize):
                break
        elif isinstance(item, Barrier):
            counts["barriers"] += 1
            if spec.get("acknowledges", True):
                channel.acknowledge(item.checkpoint_id)
        elif isinstance(item, Watermark):
            counts["watermarks"] += 1
            channel.send_watermark(item.timestamp_ms)
    (Path(spec["dir"]) / f"counts-{os.getpid()}").write_text(json.dumps(counts))
    channel.send_end()
    channel.close()


def _dies(counts: dict[str, int], spec: dict[str, Any]) -> bool:
    least_rows: int = spec.get("dies_at", sys.maxsize)
    least_barriers: int = spec.get("dies_after_barriers", 0)
    return counts["rows"] >= least_rows and counts["barriers"] >= least_barriers


if __name__ == "__main__":
    run(sys.argv[1], json.loads(sys.argv[2]))
