"""The JVM that the jobs run in; nothing ends it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flink.jvm import one_jvm


@pytest.fixture(scope="session", autouse=True)
def jvm() -> Iterator[None]:
    """One JVM for all tests."""
    with one_jvm():
        yield
