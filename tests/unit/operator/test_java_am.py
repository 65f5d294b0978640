"""What the am's coordinator and a drain decide in the JVM; stated and run in Java."""

from __future__ import annotations

import pytest

from tests.unit.exchange import java

pytestmark = pytest.mark.timeout(200)  # the first test compiles and runs all of them

PACKAGE = "am"
BEHAVIOURS = java.behaviours(PACKAGE)


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    classes = tmp_path_factory.mktemp("classes")
    java.compile_into(classes, package=PACKAGE)
    return java.run_behaviours(classes, PACKAGE)


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=map(".".join, BEHAVIOURS))
def test_java(behaviour: tuple[str, str], failures: dict[tuple[str, str], str]) -> None:
    assert failures[behaviour] == ""
