"""What operators, children and the am's coordinator do in the JVM; stated and run in Java."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import pytest

from tests.unit.exchange import java

pytestmark = pytest.mark.timeout(200)  # the first test compiles all of them

PACKAGES = ("am", "operator", "process")
BEHAVIOURS = [(at, *each) for at in PACKAGES for each in java.behaviours(at)]
Failures: TypeAlias = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def failures_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Failures]:
    classes = tmp_path_factory.mktemp("classes")
    java.compile_into(classes, PACKAGES)

    @cache
    def run(package: str) -> Failures:
        return java.run_behaviours(classes, package)

    return run


@pytest.mark.parametrize(
    ("package", "group", "name"), BEHAVIOURS, ids=[f"{c}.{n}" for _, c, n in BEHAVIOURS]
)
def test_java(
    package: str, group: str, name: str, failures_of: Callable[[str], Failures]
) -> None:
    assert failures_of(package)[group, name] == ""
