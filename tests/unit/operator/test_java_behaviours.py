"""What the operators in the JVM do by themselves; stated and run in Java, one test each here."""

from __future__ import annotations

import pytest

from tests.unit.exchange import java

pytestmark = pytest.mark.timeout(200)  # the first test compiles and runs all of them

PACKAGE = "operator"


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    classes = tmp_path_factory.mktemp("classes")
    java.compile_into(classes, package=PACKAGE)
    return java.run_behaviours(classes, PACKAGE)


@pytest.mark.parametrize(
    "behaviour", java.behaviours(PACKAGE), ids=[".".join(each) for each in java.behaviours(PACKAGE)]
)
def test_java(behaviour: tuple[str, str], failures: dict[tuple[str, str], str]) -> None:
    assert failures[behaviour] == ""
