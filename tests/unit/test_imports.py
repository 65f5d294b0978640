"""What is left for later while large libraries are imported."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace._imports import quick_imports


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_inside_and_the_collector_is_on_again_behind() -> None:
    gc.collect()  # or one may fall due before it is switched off
    before = [each["collections"] for each in gc.get_stats()]
    with quick_imports():
        kept = [[] for _ in range(100_000)]  # type: ignore[var-annotated]
        during = [each["collections"] for each in gc.get_stats()]
    assert during == before
    assert gc.isenabled()
    assert len(kept) == 100_000


def test_it_is_on_again_behind_a_failed_import() -> None:
    with pytest.raises(ModuleNotFoundError), quick_imports():
        import no_such_module  # type: ignore[import-not-found] # noqa: F401
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with quick_imports():
        pass
    assert not gc.isenabled()


@pytest.mark.timeout(60)  # imports TensorFlow, and most of what is beside it
def test_keras_brings_scikit_learn_and_matplotlib_when_they_are_used() -> None:
    pytest.importorskip("sklearn")
    program = """
import sys
from headrace._imports import quick_imports
with quick_imports():
    import tensorflow as tf
import keras
found = [name for name in ("sklearn", "matplotlib") if name in sys.modules]
assert not found, found
assert keras.wrappers.SKLearnClassifier is tf.keras.wrappers.SKLearnClassifier
assert issubclass(keras.wrappers.SKLearnClassifier, sys.modules["sklearn"].base.BaseEstimator)
assert callable(keras.visualization.plot_image_gallery)
assert "matplotlib.pyplot" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
