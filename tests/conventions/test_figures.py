"""Figures in documents are those of benchmarks/results, and of nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.summary import BEGIN, END, README, summary_lines

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {"chaos": "chaos", "kinds": "recovery_by_kind"}
"""Results of commands that are no script in `benchmarks/`, by the command: `make chaos`."""


def test_every_script_has_a_result_with_what_was_promised() -> None:
    scripts = _run_by_all()
    assert scripts
    results = {
        path.stem: json.loads(path.read_text())
        for path in (ROOT / "benchmarks" / "results").glob("*.json")
    }
    assert results.keys() == scripts | {*OTHERS.values()}
    assert [name for name, result in results.items() if not result.get("bars")] == []


def test_the_table_of_figures_is_that_of_the_results() -> None:
    _, _, behind = README.read_text().partition(f"{BEGIN}\n")
    table, _, _ = behind.partition(END)
    assert table.splitlines()[2:] == summary_lines(), (
        "results were measured anew: run `python -m benchmarks.summary`"
    )


def test_the_readme_quotes_figures_as_they_were_measured() -> None:
    modules = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    scripts = modules | {*OTHERS.values()}
    quoted = [
        line
        for line in (ROOT / "README.md").read_text().splitlines()
        if re.match(r"\| (\w+) \|", line) and line.split("|")[1].strip() in scripts
    ]
    assert [line for line in quoted if line not in summary_lines()] == []


def test_every_script_has_a_line_in_the_readme_of_the_benchmarks_and_runs_with_all() -> None:
    scripts = {
        path.stem
        for path in (ROOT / "benchmarks").glob("*.py")
        if "report.write_result(" in path.read_text()
        or "print(write_result(" in path.read_text()
    }
    described = set(
        re.findall(r"^\| `python -m benchmarks\.(\w+)` \|", README.read_text(), re.M)
    )
    assert described == scripts
    assert _run_by_all() == scripts
    commands = set(re.findall(r"^\| `make (\w+)` \|", README.read_text(), re.M))
    assert commands == OTHERS.keys()


def _run_by_all() -> set[str]:
    """The scripts of `python -m benchmarks` that measure."""
    modules = re.findall(r'"benchmarks\.(\w+)"', (ROOT / "benchmarks/__main__.py").read_text())
    return set(modules) - {"summary"}
