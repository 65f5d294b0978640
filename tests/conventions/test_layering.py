"""Imports point down only: the layers of docs/adr/0003-package-role.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "headrace"

BASE = frozenset({"_counts", "_environ", "_imports", "config", "errors"})
MAY_IMPORT: dict[str, frozenset[str]] = {
    "_environ": frozenset(),
    "_imports": frozenset(),
    "errors": frozenset(),
    "_counts": frozenset({"errors"}),
    "config": frozenset({"_counts", "errors"}),
    "exchange": BASE,
    "framework": BASE,
    "role": BASE | {"exchange", "framework"},
    "operator": BASE | {"framework", "role"},
    "inference": BASE | {"framework", "role", "operator"},
    "estimator": BASE | {"role", "operator", "inference"},
    "pytorch": BASE | {"exchange", "framework", "role", "operator", "inference", "estimator"},
    "tensorflow": BASE
    | {"exchange", "framework", "role", "operator", "inference", "estimator"},
    "sql": BASE | {"framework", "operator", "inference", "pytorch", "tensorflow"},
    "testing": BASE | {"exchange", "framework", "role", "operator", "pytorch", "tensorflow"},
    "__init__": BASE | {"operator", "pytorch", "tensorflow", "testing"},
}
"""Part of the package to the other parts that it may import."""

NOT_FOR_ALL = {
    "pyflink": {"operator"},
    "py4j": {"operator"},
    "torch": {"pytorch"},
    "grpc": {"framework"},
    "pyarrow": {
        "exchange",
        "role",
        "inference",
        "estimator",
        "pytorch",
        "tensorflow",
        "sql",
        "testing",
    },
    "numpy": {"exchange", "role", "inference", "pytorch", "tensorflow", "testing"},
    "tensorflow": {"tensorflow"},
    "keras": {"tensorflow"},
    "pandas": set[str](),
}
"""Distribution to the parts that may import it; others are for every part."""

JAVA = PACKAGE.parents[1] / "java" / "src" / "main" / "java" / "org" / "headrace"
JAVA_MAY_IMPORT: dict[str, frozenset[str]] = {
    "json": frozenset(),
    "tfrecord": frozenset(),
    "exchange": frozenset(),
    "plan": frozenset({"json", "exchange"}),
    "process": frozenset({"json", "plan"}),
    "am": frozenset({"json", "plan", "process"}),
    "operator": frozenset({"json", "exchange", "plan", "process", "am"}),
    "sql": frozenset({"json", "plan", "process", "operator"}),
}
"""The same for the packages of the JVM half."""

MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_by(module: Path) -> set[str]:
    """Names of the imported modules; `from headrace import x` counts as `headrace.x`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text())):
        match node:
            case ast.Import(aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom("headrace", aliases, _):
                names |= {f"headrace.{alias.name}" for alias in aliases}
            case ast.ImportFrom(name, _, level):
                assert level == 0, f"{module} has a relative import"
                names.add(str(name))
            case _:
                pass
    return names


def named(module: Path) -> str:
    return str(module.relative_to(PACKAGE))


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_imports_only_lower_layers(module: Path) -> None:
    part = part_of(module)
    inner = {name.split(".")[1] for name in imported_by(module) if name.startswith("headrace.")}
    assert inner - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("module", MODULES, ids=named)
def test_a_module_imports_only_the_libraries_of_its_layer(module: Path) -> None:
    part = part_of(module)
    outer = {name.split(".")[0] for name in imported_by(module)}
    assert not {name for name in outer if part not in NOT_FOR_ALL.get(name, {part})}


@pytest.mark.parametrize(
    ("imported", "absent"),
    [
        ("headrace", {"torch", "tensorflow", "pyflink", "py4j", "pyarrow", "numpy", "grpc"}),
        ("headrace.exchange", {"torch", "tensorflow", "pyflink", "py4j", "grpc"}),
        ("headrace.framework", {"torch", "tensorflow", "pyflink", "py4j", "pyarrow", "numpy"}),
        ("headrace.role", {"torch", "tensorflow", "pyflink", "py4j"}),
        ("headrace.operator.training", {"torch", "tensorflow", "pyflink", "py4j", "pyarrow"}),
        ("headrace.testing", {"torch", "tensorflow", "pyflink", "py4j"}),
        ("headrace.sql", {"torch", "tensorflow", "keras", "pyflink", "py4j", "pyarrow"}),
        ("headrace.sql.planner", {"torch", "tensorflow", "keras", "pyflink", "py4j"}),
        ("headrace.pytorch", {"tensorflow", "keras", "pyflink", "py4j"}),
        ("headrace.tensorflow", {"tensorflow", "keras", "torch", "pyflink", "py4j"}),
        ("headrace.tensorflow.tfrecord", {"tensorflow", "keras", "torch", "pyflink", "py4j"}),
        ("headrace.framework.master", {"tensorflow", "keras", "torch", "pyflink", "pyarrow"}),
        ("headrace.framework.node", {"tensorflow", "keras", "torch", "pyflink", "pyarrow"}),
    ],
)
def test_an_import_brings_no_library_of_a_higher_layer(imported: str, absent: set[str]) -> None:
    program = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not absent & set(done.stdout.split())


def test_every_java_package_has_a_layer() -> None:
    assert {path.name for path in JAVA.iterdir()} == set(JAVA_MAY_IMPORT)


@pytest.mark.parametrize("package", JAVA_MAY_IMPORT)
def test_a_java_package_imports_only_lower_layers(package: str) -> None:
    sources = "".join(path.read_text() for path in (JAVA / package).rglob("*.java"))
    inner = set(re.findall(r"\borg\.headrace\.(\w+)", sources))
    assert inner - {package} <= JAVA_MAY_IMPORT[package]
