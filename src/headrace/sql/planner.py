"""Answers one question of the planner: JSON on stdin, JSON on stdout."""

from __future__ import annotations

import sys

from headrace.framework.jvm import claim_stdout
from headrace.sql.planning import answer

__all__ = ["main"]


def main() -> int:
    """Return the exit code: 0 once there is an answer, also where it is a refusal."""
    lines = claim_stdout()  # what imported modules print goes to stderr
    lines.write(answer(sys.stdin.buffer.read()))
    lines.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
