"""What TensorFlow leaves in cycles is collected behind each file of tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Collect graphs and functions: those of several files took 45 s of a later test."""
    yield
    gc.collect()
