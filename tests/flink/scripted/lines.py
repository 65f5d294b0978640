"""What both scripted children need: lines on stdin and stdout."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def say(type_: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"type": type_, **fields}) + "\n")
    sys.stdout.flush()


def heard() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def started() -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the start line and the spec; leave the start line in `dir` for the test."""
    start = next(heard())
    paths = (start["work_dir"], start["spec_path"], start["payload_path"])
    start["modes"] = [oct(Path(path).stat().st_mode & 0o777) for path in paths]
    spec = json.loads(Path(start["spec_path"]).read_text())
    folder = Path(spec["dir"])
    number = len(list(folder.glob("start-*")))
    (folder / f"start-{number}-{start['role']}-{start['index']}").write_text(json.dumps(start))
    return start, spec


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)
