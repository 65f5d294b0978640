"""What every source file keeps to."""

from __future__ import annotations

import importlib
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "headrace"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAX_LINES = {"src": 400, "java": 400, "examples": 300, "benchmarks": 400, "tests": 800}

_BINARY = "tests/golden/every_type."

OF_ONE_MACHINE = re.compile(
    r"/(?:home|root|work|opt|Users|var/tmp)/|/tmp/\w|site-packages|\.pyenv"
)


def tracked(*patterns: str) -> list[Path]:
    """Files that git knows, or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    paths = (ROOT / name for name in done.stdout.split() if not name.startswith(_BINARY))
    return [path for path in paths if path.exists()]


def module_name(module: Path) -> str:
    parts = module.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.mark.parametrize(
    "name", [module_name(each) for each in MODULES if each.stem != "__main__"]
)
def test_all_public_names_are_listed_exist_and_come_once(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    if public is None:
        own = {
            each for each, value in vars(module).items() if not isinstance(value, ModuleType)
        }
        assert {each for each in own if not each.startswith("_")} <= {"annotations"}
        return
    assert [each for each in public if not hasattr(module, each)] == []
    assert len(public) == len(set(public))


def test_no_file_is_longer_than_its_limit() -> None:
    too_long = {}
    for path in tracked("*.py", "*.java"):
        lines = len(path.read_text().splitlines())
        if lines > MAX_LINES.get(path.relative_to(ROOT).parts[0], 400):
            too_long[str(path.relative_to(ROOT))] = lines
    assert too_long == {}


def test_no_file_names_a_place_of_one_machine() -> None:
    found = []
    for path in tracked("*.py", "*.java", "*.md", "*.toml", "*.txt", "Makefile", ".ci/run"):
        if path == Path(__file__):
            continue
        lines = path.read_text().splitlines()
        found += [
            f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
            for number, line in enumerate(lines, 1)
            if OF_ONE_MACHINE.search(line)
        ]
    assert found == []
