"""A node that keeps what the JVM says to it: lines on stdin, docs/lifecycle.md section 1.

As a program it stands for `-m headrace.framework.node`; its argument is the folder for the
file `lines-PID`.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

__all__ = ["recording_interpreter"]

_INTERPRETER = """#!/bin/sh
if [ "$2" = headrace.framework.node ]; then
    exec '{python}' '{program}' '{folder}'
fi
exec '{python}' "$@"
"""


def recording_interpreter(folder: Path) -> Path:
    """Make a Python for `python.executable` whose nodes keep their lines in `folder`."""
    interpreter = folder / "python"
    interpreter.write_text(
        _INTERPRETER.format(python=sys.executable, program=__file__, folder=folder)
    )
    interpreter.chmod(0o700)
    return interpreter


def main(folder: Path) -> None:
    """Run the node; each line is in the file before the node has it."""
    from headrace.framework.node.__main__ import main as run_node

    from_jvm = os.dup(0)
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    os.close(read_end)

    def record() -> None:
        with (
            os.fdopen(from_jvm, "rb") as lines,
            os.fdopen(write_end, "wb", buffering=0) as node,
            (folder / f"lines-{os.getpid()}").open("wb", buffering=0) as file,
        ):
            for line in lines:
                file.write(line)
                node.write(line)

    threading.Thread(target=record, name="recording", daemon=True).start()
    run_node()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
