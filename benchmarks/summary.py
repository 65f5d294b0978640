"""The figures that were promised, as lines of a table: `python -m benchmarks.summary`.

Writes them into README.md beside this file, and anew those that the README of the project
quotes. A convention test holds both against `results/`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.report import RESULTS

__all__ = ["BEGIN", "END", "README", "summary_lines"]

README = Path(__file__).parent / "README.md"
BEGIN = "<!-- figures: written by python -m benchmarks.summary -->"
END = "<!-- end of figures -->"


def summary_lines(folder: Path = RESULTS) -> list[str]:
    """Return a line `| script | figure | measured | promised | met |` for each bar."""
    lines = []
    for path in sorted(folder.glob("*.json")):
        for name, bar in json.loads(path.read_text()).get("bars", {}).items():
            met = "yes" if bar["is_met"] else "**no**"
            lines.append(
                f"| {path.stem} | {name} | {bar['value']:.3g} | {bar['bar']} | {met} |"
            )
    return lines


def main() -> None:
    """Write the lines into both files, and print those that miss what was promised."""
    lines = summary_lines()
    _renew_quotes(lines)
    table = "\n".join(
        ["| script | figure | measured | promised | met |", "|---|---|---|---|---|", *lines]
    )
    block = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)
    text, count = block.subn(lambda _: f"{BEGIN}\n{table}\n{END}", README.read_text())
    assert count == 1, f"{README} has {count} places for the figures"
    README.write_text(text)
    for line in lines:
        if line.endswith("**no** |"):
            print(line)


def _renew_quotes(lines: list[str]) -> None:
    by_figure = {tuple(line.split("|")[1:3]): line for line in lines}
    quoting = README.parents[1] / "README.md"
    quoting.write_text(
        "".join(
            by_figure.get(tuple(line.split("|")[1:3]), line.rstrip("\n")) + "\n"
            for line in quoting.read_text().splitlines(keepends=True)
        )
    )


if __name__ == "__main__":
    main()
