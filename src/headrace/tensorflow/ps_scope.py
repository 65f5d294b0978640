"""Puts the variables of models and optimizers on the parameter servers.

While the scope is open, new variables go there, but for those that belong to one process:
metrics, learning rates, states of random numbers. Optimizers make most of their variables
later, when they first see what they train; so once a process uses parameter servers, an
optimizer that is to train such variables puts its own beside them, wherever it was made, counts
its steps together with the other workers, and computes each update where the variable is, so
that only the gradient travels.

All workers give a variable the same name and server without talking: by counting. What an
optimizer makes beside what it trains is counted apart, per optimizer, since a worker without
rows never builds its. A few kinds make further variables in other ways (Nadam, Adafactor, loss
scaling): those stay in the process, or count with the user's where the scope is open.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import keras
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.tensorflow.internals import device_in_scope, move_variable
from headrace.tensorflow.placement import Placement
from headrace.tensorflow.ps_variable import ParameterServerVariable
from headrace.tensorflow.variables import make_counter, raw_variable

__all__ = ["ParameterServerScope"]

_RANDOM_STATE = "seed_generator_state"
_LEARNING_RATE = "learning_rate"


class ParameterServerScope:
    """What this process has put on the parameter servers.

    Thread model: one thread makes variables at a time.

    Args:
        servers: Number of parameter servers.
        lease: Returns what is entered while variables are made.
    """

    def __init__(self, servers: int, lease: Callable[[], AbstractContextManager[None]]) -> None:
        self._placement = Placement(servers)
        self._lease = lease
        self._made = 0
        self._users: list[weakref.ref[ParameterServerVariable]] = []
        self._of_optimizers: list[weakref.ref[ParameterServerVariable]] = []
        self._slots: _Slots | None = None  # of the optimizer that makes variables now
        self._slots_of: weakref.WeakKeyDictionary[Any, _Slots] = weakref.WeakKeyDictionary()
        self._optimizers: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._depth = 0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Put what is made in the `with` block on the servers. May be nested."""
        with self._lock:
            if self._depth:
                yield
                return
            self._depth = 1
            try:
                with self._lease(), tf.variable_creator_scope(self._create):
                    yield
            finally:
                self._depth = 0

    def _create(self, next_creator: Callable[..., Any], **arguments: Any) -> Any:
        if _is_of_one_process(arguments):
            return next_creator(**arguments)
        value = arguments["initial_value"]
        with tf.init_scope():  # an optimizer makes variables while a step is traced
            value = tf.convert_to_tensor(
                value() if callable(value) else value, dtype=arguments.get("dtype")
            )
        size_bytes = value.shape.num_elements() * value.dtype.size
        name = arguments.get("name") or "variable"
        server = _server_in_scope()
        if self._slots is not None:
            shared_name = self._slots.next_name(name)
            server = self._slots.server if server is None else server
        else:
            shared_name = f"{self._made}-{name}"
            self._made += 1
            if server is None:
                server = self._placement.place(size_bytes)
            else:
                self._placement.put(server, size_bytes)
        made = ParameterServerVariable(
            initial_value=value,
            shared_name=shared_name,
            server=server,
            trainable=arguments.get("trainable"),
            name=name,
            aggregation=arguments.get("aggregation"),
            synchronization=arguments.get("synchronization"),
        )
        kept = self._users if self._slots is None else self._of_optimizers
        kept.append(weakref.ref(made))
        return made

    def made_but(
        self, shared_names: Collection[str], *, by_optimizers: bool = False
    ) -> list[str]:
        """Return the names of variables that are there, less those given.

        Those that optimizers have made beside what they train, or only the others.
        """
        made = self._of_optimizers if by_optimizers else self._users
        there = [each for each in (ref() for ref in list(made)) if each is not None]
        return [each.shared_name for each in there if each.shared_name not in shared_names]

    def adopt_optimizers(self) -> None:
        """From now on, optimizers of this process put their variables beside what they train.

        Changes Keras' optimizer class in this process, once; optimizers that train ordinary
        variables only do what they did.
        """
        kind = keras.optimizers.Optimizer
        build, add_variable = kind.build, kind.add_variable_from_reference
        scope = self

        def build_beside(self: Any, variables: Any) -> Any:
            first = next((raw_variable(v) for v in variables if is_on_server(v)), None)
            if self.built or first is None:
                return build(self, variables)
            _require_no_sums(self)
            with scope._counting_apart(self, first):
                with scope.open():
                    count = tf.Variable(0, dtype=tf.int64, trainable=False, name="iteration")
                _count_together(self.iterations, count)
                _update_on_the_servers(self)
                return build(self, variables)

        def add_beside(self: Any, reference_variable: Any, *args: Any, **more: Any) -> Any:
            if not is_on_server(reference_variable):
                return add_variable(self, reference_variable, *args, **more)
            reference = raw_variable(reference_variable)
            with (
                scope._counting_apart(self, reference),
                scope.open(),
                tf.device(reference.device),
            ):
                return add_variable(self, reference_variable, *args, **more)

        kind.build, kind.add_variable_from_reference = build_beside, add_beside

    @contextmanager
    def _counting_apart(
        self, optimizer: Any, reference: ParameterServerVariable
    ) -> Iterator[None]:
        """Name what is made in the `with` block as the variables of `optimizer`.

        Args:
            optimizer: Any optimizer of Keras'.
            reference: If it has made no variable yet: the first one that it trains.
        """
        with self._lock:
            slots = self._slots_of.get(optimizer)
            if slots is None:
                kind = f"{reference.shared_name}/{type(optimizer).__name__}"
                slots = _Slots(f"{kind}-{self._optimizers[kind]}", reference.server)
                self._optimizers[kind] += 1
                self._slots_of[optimizer] = slots
            former, self._slots = self._slots, slots
            try:
                yield
            finally:
                self._slots = former


class _Slots:
    """Names for the variables of one optimizer, in the order in which it makes them.

    Args:
        prefix: Of the names; that of no other optimizer in this process.
        server: Parameter server of those that belong to no trained variable.
    """

    def __init__(self, prefix: str, server: int) -> None:
        self._prefix = prefix
        self._made = 0
        self.server = server

    def next_name(self, name: str) -> str:
        shared_name = f"{self._prefix}/{self._made}-{name}"
        self._made += 1
        return shared_name


def is_on_server(variable: Any) -> bool:
    """Return whether a variable, of Keras or TensorFlow, lives on a parameter server."""
    return isinstance(raw_variable(variable), ParameterServerVariable)


def _is_of_one_process(arguments: dict[str, Any]) -> bool:
    is_metric = arguments.get("synchronization") is tf.VariableSynchronization.ON_READ
    return is_metric or arguments.get("name") in (_RANDOM_STATE, _LEARNING_RATE)


def _server_in_scope() -> int | None:
    """Return the parameter server that a `tf.device` scope asks for, if one does."""
    device = device_in_scope()
    _, found, rest = device.partition("/job:ps/replica:0/task:")
    return int(rest.partition("/")[0]) if found else None


def _count_together(iterations: Any, count: Any) -> None:
    """Make an optimizer's count of steps the common one.

    Keras adds to a variable by reading and then writing it; here it is one operation. Beside
    it, this process counts its own steps (`own_count`).
    """
    move_variable(iterations, count)
    count.of_this_process = own = make_counter([])

    def add(value: Any) -> Any:
        own.assign_add(1)
        return count.assign_add(tf.cast(value, count.dtype))

    iterations.assign_add = add


def _require_no_sums(optimizer: Any) -> None:
    """Refuse what would keep sums of gradients beside the variables, one for all workers."""
    steps = optimizer.gradient_accumulation_steps
    if steps:
        kind = type(optimizer).__name__
        msg = (
            f"{kind}(gradient_accumulation_steps={steps}) cannot train variables on parameter "
            "servers: the workers, which train independently of each other, would add to, and "
            f"empty, each other's sums. Leave it out, and use batches of {steps} times the rows"
        )
        raise ConfigError(msg)


def _update_on_the_servers(optimizer: Any) -> None:
    update = optimizer.update_step

    def update_there(gradient: Any, variable: Any, learning_rate: Any) -> Any:
        with tf.device(raw_variable(variable).device):
            return update(_sent(gradient), variable, learning_rate)

    optimizer.update_step = update_there


def _sent(gradient: Any) -> Any:
    """Copy a gradient to the device in scope."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            tf.identity(gradient.values),
            tf.identity(gradient.indices),
            gradient.dense_shape,
        )
    return tf.identity(gradient)
