"""The private parts of TensorFlow and Keras that Headrace uses: all of them, here only.

They have no public counterpart. `tests/unit/tensorflow/test_internals.py` pins what is relied
on, and says what to do when a part has moved.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.trainers.trainer import Trainer
from tensorflow.python.data.ops import map_op
from tensorflow.python.eager import context
from tensorflow.python.ops import handle_data_util
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

__all__ = [
    "BaseResourceVariable",
    "connect",
    "device_in_scope",
    "is_started",
    "leave_xla_out",
    "let_steps_wait_for_their_batch",
    "map_in_place",
    "move_variable",
    "tell_iterators",
    "wait_for_servers",
    "with_handle_data",
]


def connect(
    cluster: tf.train.ClusterSpec, *, job_name: str, task_index: int, keep_alive_s: int
) -> None:
    """Make this process task `task_index` of `job_name`, and the others' devices usable here.

    As `tf.config.experimental_connect_to_cluster`, which does not let choose how long the
    others keep what belongs to a client that has fallen silent.

    Blocks until every other task of `cluster` has answered.

    Args:
        cluster: This task and the servers to use; it need not name anybody else.
        job_name: Job of this task in `cluster`.
        task_index: Its index.
        keep_alive_s: Seconds after which a server drops what a silent client held there.
    """
    definition = tf.train.ServerDef(
        cluster=cluster.as_cluster_def(),
        job_name=job_name,
        task_index=task_index,
        protocol="grpc",
        default_session_config=context.context().config,
    )
    context.context().set_server_def(definition, keep_alive_secs=keep_alive_s)


def wait_for_servers() -> None:
    """Wait until other processes have done all that this one has sent them.

    Operations on a variable of another process are sent without waiting. Has no limit of its
    own: a server that is frozen is killed by its node after `timeouts.heartbeat_timeout_s`.

    Raises:
        tf.errors.OpError: A server has ended, or an operation failed there.
    """
    context.context().sync_executors()


def device_in_scope() -> str:
    """Return the device that `tf.device` scopes ask for now; empty if none does."""
    return str(context.context().device_name or "")


def with_handle_data(handle: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Return the handle of a variable, telling the shape and type that its values have.

    A handle that was made by a raw operation does not tell them inside `tf.function`.
    """
    handle._handle_data = handle_data_util.create_handle_data(  # noqa: SLF001
        like.shape, like.dtype
    )
    return handle


def is_started() -> bool:
    """Return whether TensorFlow has made its devices, after which threads cannot be set."""
    return context.context()._context_handle is not None  # noqa: SLF001


def leave_xla_out() -> None:
    """Make Keras models of this process choose not to be compiled by XLA by themselves.

    XLA cannot use variables of another process, and cannot call back into Python.
    """
    Trainer._resolve_auto_jit_compile = lambda _: False  # noqa: SLF001


def let_steps_wait_for_their_batch() -> None:
    """Make Keras begin a step when its batch is there, and no earlier. Idempotent.

    ``fit`` on a dataset of unknown length puts the request for a batch and the step on it into
    one graph, in which all that does not depend on the batch may run before it has come. Then
    variables are read that change meanwhile, and a step is counted that is never made if the
    dataset ends instead.
    """
    TensorFlowTrainer._make_function = _make_waiting_function  # noqa: SLF001


_make_function = TensorFlowTrainer._make_function  # noqa: SLF001 - Keras' own


def _make_waiting_function(self: Any, step_function: Any) -> Any:
    def step(data: Any) -> Any:
        tensors = tf.nest.flatten(data, expand_composites=True)
        with tf.control_dependencies([each for each in tensors if tf.is_tensor(each)]):
            return step_function(data)

    return _make_function(self, step)


def map_in_place(dataset: tf.data.Dataset, function: Callable[..., Any]) -> tf.data.Dataset:
    """As `Dataset.map`, but `function` runs on the thread that asks for an element.

    It is handed to no other thread, which takes long while all cores are busy, and its
    `StopIteration` is the end of the dataset.
    """
    return map_op._MapDataset(  # noqa: SLF001
        dataset,
        function,
        force_synchronous=True,
        use_inter_op_parallelism=False,
        preserve_cardinality=False,
    )


def tell_iterators(dataset: tf.data.Dataset, on_iterator: Callable[[], object]) -> None:
    """Call `on_iterator` when Python makes an iterator over `dataset` itself.

    That is what a loop, Keras' methods and `adapt` do; one over what was made of it
    (``shuffle``, ``prefetch``) does not count.
    """
    kind = type(dataset)

    def iterate(self: Any) -> Any:
        on_iterator()
        return kind.__iter__(self)

    dataset.__class__ = type(kind.__name__, (kind,), {"__iter__": iterate})


def move_variable(variable: keras.Variable, place: tf.Variable) -> None:
    """Make a Keras variable keep its value in another variable of TensorFlow's."""
    variable._value = place  # noqa: SLF001
