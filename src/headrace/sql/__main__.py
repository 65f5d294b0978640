"""`python -m headrace.sql FILE` runs a SQL file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from headrace.errors import HeadraceError

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Return the exit code: 0 if every statement has run to its good end."""
    parser = argparse.ArgumentParser(
        prog="python -m headrace.sql", description="Run the statements of a SQL file."
    )
    parser.add_argument("file", type=Path, help="SQL statements, each with a ; behind it")
    path = parser.parse_args(arguments).file
    from headrace.operator.script import run_script

    try:
        run_script(path)
    except (HeadraceError, OSError) as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
