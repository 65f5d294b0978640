"""Compiles the JVM's side of the memory queue once for all tests of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.exchange import java


@pytest.fixture(scope="session")
def java_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    classes: Path = tmp_path_factory.mktemp("java")
    java.compile_into(classes)
    return classes
