"""Between Keras' variables and TensorFlow's."""

from __future__ import annotations

from typing import Any

import keras

__all__ = ["raw_variable"]


def raw_variable(variable: Any) -> Any:
    """Return TensorFlow's variable inside a Keras one; one of TensorFlow's as it is."""
    return variable.value if isinstance(variable, keras.Variable) else variable
