"""What the JVM's side of the memory queue does; stated and run in Java, one test each here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.exchange import java

pytestmark = pytest.mark.timeout(200)  # the first test compiles and runs all of them


@pytest.fixture(scope="module")
def failures(java_classes: Path) -> dict[tuple[str, str], str]:
    return java.run_behaviours(java_classes)


@pytest.mark.parametrize(
    "behaviour", java.behaviours(), ids=[f"{group}.{name}" for group, name in java.behaviours()]
)
def test_java(behaviour: tuple[str, str], failures: dict[tuple[str, str], str]) -> None:
    assert failures[behaviour] == ""
