"""A variable that lives on a parameter server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from headrace.errors import ConfigError, ServerLostError
from headrace.tensorflow.internals import BaseResourceVariable, with_handle_data

__all__ = ["ParameterServerVariable", "ps_device"]

_CONTAINER = "headrace"


def ps_device(server: int) -> str:
    """Return TensorFlow's name of the CPU of parameter server `server`."""
    return f"/job:ps/replica:0/task:{server}/device:CPU:0"


class ParameterServerVariable(BaseResourceVariable):  # type: ignore[misc] # has no types
    """A `tf.Variable` that any number of clients share, by its name on the server.

    The first client to make it gives it its value; the others, and one that comes back, find
    what it has become. `assign_add` and `assign_sub` are atomic on the server.

    Thread model: as `tf.Variable`. Making it needs the lease (`headrace.tensorflow.lease`).

    Args:
        initial_value: A tensor, or what makes one; used if the variable has none yet.
        shared_name: Its name on the server.
        server: Index of the server.
        trainable: As for `tf.Variable`.
        dtype: As for `tf.Variable`.
        name: As for `tf.Variable`; need not be unique.
        aggregation: As for `tf.Variable`.
        synchronization: As for `tf.Variable`.

    Attributes:
        shared_name: Its name on the server.
        server: Index of the server.
    """

    def __init__(
        self,
        *,
        initial_value: tf.Tensor | Callable[[], tf.Tensor],
        shared_name: str,
        server: int,
        trainable: bool | None = None,
        dtype: Any = None,
        name: str | None = None,
        aggregation: Any = None,
        synchronization: Any = None,
    ) -> None:
        self.shared_name = shared_name
        self.server = server
        with tf.init_scope():
            value = tf.convert_to_tensor(
                initial_value() if callable(initial_value) else initial_value, dtype=dtype
            )
            with tf.device(ps_device(server)):
                handle = tf.raw_ops.VarHandleOp(
                    dtype=value.dtype,
                    shape=value.shape,
                    container=_CONTAINER,
                    shared_name=shared_name,
                )
                if bool(tf.raw_ops.VarIsInitializedOp(resource=handle)):
                    _require_shape(handle, value, shared_name)
                else:
                    tf.raw_ops.AssignVariableOp(resource=handle, value=value)
                    _require_there(handle, shared_name, server)
        super().__init__(
            trainable=trainable,
            shape=value.shape,
            dtype=value.dtype,
            handle=with_handle_data(handle, value),
            name=name or shared_name,
            handle_name=shared_name,
            unique_id=shared_name,
            in_graph_mode=False,
            aggregation=aggregation,
            synchronization=synchronization,
        )


def _require_there(handle: tf.Tensor, shared_name: str, server: int) -> None:
    """Make sure that a value that was sent has arrived, so that the next client finds it."""
    if not bool(tf.raw_ops.VarIsInitializedOp(resource=handle)):
        reason = f"variable {shared_name!r} was sent to server {server} and is not there"
        raise ServerLostError(reason=reason)


def _require_shape(handle: tf.Tensor, value: tf.Tensor, shared_name: str) -> None:
    there = tf.raw_ops.VariableShape(input=handle).numpy().tolist()
    if there != value.shape.as_list():
        msg = (
            f"Variable {shared_name!r} has the shape {there} on its parameter server, where "
            f"another worker made it, and {value.shape.as_list()} here: the workers' models "
            "differ. Every worker must make the same variables in the same order."
        )
        raise ConfigError(msg)
