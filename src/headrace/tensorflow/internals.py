"""The private parts of TensorFlow and Keras that Headrace uses: all of them, here only.

They have no public counterpart. `tests/unit/tensorflow/test_internals.py` pins what is relied
on, and says what to do when a part has moved.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.trainers.trainer import Trainer
from tensorflow.python.data.ops import map_op
from tensorflow.python.eager import context
from tensorflow.python.ops import control_flow_util, handle_data_util, stateful_random_ops
from tensorflow.python.ops.resource_variable_ops import BaseResourceVariable

__all__ = [
    "BaseResourceVariable",
    "KerasSeeds",
    "connect",
    "device_in_scope",
    "global_generator",
    "is_started",
    "leave_xla_out",
    "let_steps_wait_for_their_batch",
    "map_in_place",
    "move_variable",
    "operation_seeds",
    "set_operation_seeds",
    "tell_iterators",
    "view_of",
    "wait_for_servers",
    "watch_optimizers",
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
    own: a server that is frozen is killed by its node after `timeouts.heartbeat_timeout_s`. Of
    the loss of a server TensorFlow tells once, whoever asks next; who asks later waits until
    the end of the group ends this process.

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


def watch_optimizers(
    on_step: Callable[[], object], on_compiled: Callable[[], object]
) -> Callable[[], None]:
    """Call `on_step` before every step of any Keras optimizer, when its gradients are there.

    What it raises ends the step before anything has changed. Changes Keras' optimizer class in
    this process.

    Args:
        on_step: Called on the thread that makes the step: in `tf.function` one of TensorFlow's.
        on_compiled: Called in its place where XLA compiles the step, which cannot call back
            into Python: once, when it is traced.

    Returns:
        What ends it. Steps that were traced before go on to call `on_step`.
    """
    kind = keras.optimizers.Optimizer
    apply = kind.apply

    def look() -> np.bool_:
        on_step()
        return np.True_

    def watched(self: Any, grads: Any, trainable_variables: Any = None) -> Any:
        grads = list(grads)
        if tf.executing_eagerly():
            on_step()
        elif control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            on_compiled()
        else:
            with tf.control_dependencies([each for each in grads if each is not None]):
                looked = tf.numpy_function(look, [], tf.bool)
            with tf.control_dependencies([looked]):
                return apply(self, grads, trainable_variables)
        return apply(self, grads, trainable_variables)

    def end() -> None:
        kind.apply = apply

    kind.apply = watched
    return end


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


def view_of(variable: Any) -> np.ndarray[Any, Any]:
    """Return the value of a variable: without a copy where it lies in this process' memory.

    The array is not to be written to. What is assigned later leaves it as it is: TensorFlow
    gives the variable other memory while the array lives. So drop it before the next step,
    which then goes on in the memory that there is.

    `Variable.numpy` copies always; `Variable.read_value`, in addition, once rows of the
    variable have been updated by themselves (embeddings), if it is not told otherwise as here.

    Args:
        variable: Of TensorFlow's, on any device. Strings, single numbers, and what is on a GPU,
            are copied.

    Source: `EagerTensor.numpy` in tensorflow/python/framework/ops.py on views of tensors;
    `copy_on_read_mode` in tensorflow/core/framework/resource_var.h.
    """
    if not isinstance(variable, BaseResourceVariable):  # of a strategy, for example
        return np.asarray(variable.numpy())
    value = variable.read_value_no_copy()
    if not value.shape.rank and value.dtype != tf.string:  # for one number NumPy has many types
        return np.asarray(value.numpy())
    # Not `memoryview`, which knows no bfloat16: np.asarray has another way to that memory.
    return np.asarray(value)


def move_variable(variable: keras.Variable, place: tf.Variable) -> None:
    """Make a Keras variable keep its value in another variable of TensorFlow's."""
    variable._value = place  # noqa: SLF001


def global_generator() -> tf.random.Generator | None:
    """Return what `tf.random.get_global_generator` does, if it was made."""
    return stateful_random_ops.global_generator


def operation_seeds() -> tuple[int, Any] | None:
    """Return the seed of `tf.random.set_seed`, and where the seeds that follow from it are.

    An operation that is called outside of a function gets the next of those seeds. None: no
    seed was set.
    """
    found = context.context()
    return None if found._seed is None else (found._seed, found._rng.getstate())  # noqa: SLF001


def set_operation_seeds(seed: int, place: Any) -> None:
    """Go on where `operation_seeds` was called; kernels that have begun are left alone."""
    found = context.context()
    seeds = random.Random()  # noqa: S311 - as TensorFlow has it
    seeds.setstate(place)
    found._seed, found._rng = seed, seeds  # noqa: SLF001


class KerasSeeds:
    """The global seed generator of `keras.random` of the thread that makes this object.

    Keras has one for each thread; a checkpoint may be captured on another one.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._note()

    def state(self) -> np.ndarray[Any, Any] | None:
        """Return its state; None where no number was drawn, or where it cannot be seen."""
        found = self._found()
        generator = None if found is None else found.get(GLOBAL_SEED_GENERATOR)
        return None if generator is None else np.array(generator.state.numpy())

    def set_state(self, state: np.ndarray[Any, Any]) -> None:
        """Set its state, in place where it is there: functions that were traced refer to it."""
        found = self._found()
        if found is None:
            return
        if found.get(GLOBAL_SEED_GENERATOR) is None:
            with tf.init_scope():
                found[GLOBAL_SEED_GENERATOR] = keras.random.SeedGenerator()
        found[GLOBAL_SEED_GENERATOR].state.assign(np.array(state))

    def _note(self) -> None:
        self._tracker = global_state.GLOBAL_STATE_TRACKER
        self._attributes: dict[str, Any] = self._tracker.__dict__  # of this thread

    def _found(self) -> dict[str, Any] | None:
        """Return the global attributes of Keras' in that thread."""
        if global_state.GLOBAL_STATE_TRACKER is not self._tracker:  # `clear_session`
            if threading.get_ident() != self._thread:
                return None
            self._note()
        return self._attributes
