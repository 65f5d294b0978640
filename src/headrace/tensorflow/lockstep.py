"""Common optimizer steps of several TensorFlow workers: what a round carries, and when.

The optimizer's ``apply`` is replaced by one that makes a round first. Inside ``tf.function``,
and so in Keras' ``fit``, that is one callback into Python with the gradients of the whole
model, which adds them up with the other workers' and returns the sum. A shadow step runs the
same ``apply`` in a function of its own.

Who runs where:

=========================  =====================================================================
active round               in the callback, on a thread of TensorFlow's, while the thread of the
                           entry function waits in the step
shadow round               on the thread that waits for rows: that of the entry function in
                           ``ctx.batches``, one of TensorFlow's in ``ctx.dataset``
=========================  =====================================================================

A dataset may be asked for its next batch while the step on the one before still runs. So before
this worker makes a shadow round, every batch that `ctx.dataset` has given out must have been
stepped on, and the step must be over: `steps` counts them at their end.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from headrace.errors import ConfigError, UsageError, WaitTimeoutError
from headrace.role.rounds import Reduction, Rounds, Tallies
from headrace.tensorflow.variables import raw_variable
from headrace.tensorflow.vector import StepVector

__all__ = ["Adder", "Lockstep"]

Array = npt.NDArray[Any]

_PAUSE_S = 0.001
_SAME_RATE = 1e-5


class Adder(Protocol):
    """Adds the vectors of all workers; `headrace.role.star.Star` does."""

    @property
    def rank(self) -> int:
        """This worker's number."""

    @property
    def world_size(self) -> int:
        """Number of workers, at least 2."""

    def add(self, vector: Array) -> None:
        """Replace `vector` by the sum over all workers."""

    def spread(self, vector: Array) -> None:
        """Overwrite `vector` by that of rank 0."""

    def close(self) -> None:
        """Leave the group. Idempotent."""


class Lockstep(Rounds):
    """One worker's part in the common steps.

    Args:
        model: Built; its variables become those of rank 0.
        optimizer: Steps the trainable variables of `model`; its ``apply`` is replaced until
            `close`.
        adder: The all-reduce.
        reduction: How the loss is reduced over the rows of a batch.
        idle_after_s: How long a worker waits for input before it lets the others go on.
        step_timeout_s: Longest wait for the loop to step on what it was given, in seconds.
        check: Called now and then during a wait; what it raises ends the wait.

    Raises:
        ConfigError: The model has nothing to train, or the workers' models differ.
        CollectiveError: A peer ended, or did not come within the limit.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        adder: Adder,
        *,
        reduction: Reduction,
        idle_after_s: float,
        step_timeout_s: float,
        check: Callable[[], object],
    ) -> None:
        super().__init__(
            world_size=adder.world_size, reduction=reduction, idle_after_s=idle_after_s
        )
        self._variables = [raw_variable(each) for each in model.trainable_variables]
        if not self._variables:
            msg = "ctx.data_parallel: the model has no trainable variables"
            raise ConfigError(msg)
        self._index = {id(v): index for index, v in enumerate(self._variables)}
        self._state = [
            raw_variable(each)
            for each in model.non_trainable_variables
            if tf.as_dtype(each.dtype).is_floating
        ]
        wide = any(v.dtype == tf.float64 for v in (*self._variables, *self._state))
        self._dtype = tf.float64 if wide else tf.float32
        self._optimizer = optimizer
        self._apply = optimizer.apply
        self._adder = adder
        self._step_timeout_s = step_timeout_s
        self._check = check
        self._sizes = [int(np.prod(v.shape)) for v in self._variables]
        self._state_sizes = [int(np.prod(v.shape)) for v in self._state]
        self._vector = StepVector(
            self._sizes, sum(self._state_sizes), self._dtype.as_numpy_dtype
        )
        self._turn = threading.RLock()
        self._rows_given: deque[int] = deque()
        self._begun = 0
        self.error: BaseException | None = None
        self._steps_done = tf.Variable(0, dtype=tf.int64, trainable=False, name="steps_done")
        self._shadow_steps: dict[tuple[int, ...], Any] = {}
        # A variable, unless a schedule computes the rate from the steps.
        self._rate = next(
            (raw_variable(v) for v in optimizer.variables if v.name == "learning_rate"), None
        )
        # Slots too: some optimizers write them beside the variable.
        self._updated = [
            *self._variables,
            *self._state,
            *map(raw_variable, optimizer.variables),
        ]
        self._spread_state()
        optimizer.apply = self._apply_in_step

    def count_batches(self, rows: Sequence[int]) -> None:
        """Note batches of `ctx.dataset`: there will be one step on each, in order."""
        self._rows_given.extend(rows)

    def withdraw_batches(self, count: int) -> None:
        """Expect no steps on the latest `count` batches: nobody took them."""
        for _ in range(count):
            self._rows_given.pop()

    def forget_batches(self) -> None:
        """Expect no more steps on what was given out: the loop has been left."""
        self._rows_given.clear()

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Nothing: a step ends on a thread of TensorFlow's, which cannot shadow the others."""

    def close(self) -> None:
        """Give the optimizer its ``apply`` back, and leave the group. Idempotent."""
        self._optimizer.apply = self._apply
        self._adder.close()

    @contextmanager
    def _before_shadows(self) -> Iterator[None]:
        """Wait until the loop has stepped on everything that the dataset has given out."""
        deadline = monotonic() + self._step_timeout_s
        pause = threading.Event()
        while self._rows_given or int(self._steps_done.numpy()) < self._begun:
            self._check()
            if monotonic() > deadline:
                raise WaitTimeoutError(
                    waited_for=f"the loop to step on {len(self._rows_given)} batches that "
                    f"ctx.dataset has given out, after {self._begun} steps",
                    waited_s=self._step_timeout_s,
                    setting="timeouts.collective_timeout_s",
                    hint="After ctx.data_parallel every batch of ctx.dataset needs exactly one "
                    "optimizer step, before the dataset ends: nothing behind it may hold rows "
                    "back (shuffle) or group them anew. For that, read with ctx.batches.",
                )
            pause.wait(_PAUSE_S)
        yield

    # --- active steps ------------------------------------------------------------------

    def _apply_in_step(self, grads: Sequence[Any], trainable_variables: Any = None) -> None:
        """Do what the optimizer's ``apply`` does, on the gradients of all workers."""
        grads = list(grads)
        variables = (
            self._variables
            if trainable_variables is None
            else [raw_variable(each) for each in trainable_variables]
        )
        places = [self._place_of(variable) for variable in variables]
        by_place = {
            place: tf.cast(tf.convert_to_tensor(grad), self._dtype)
            for place, grad in zip(places, grads, strict=True)
            if grad is not None
        }
        flags = [float(place in by_place) for place in range(len(self._variables))]
        flat = [
            tf.reshape(by_place[place], [-1])
            if place in by_place
            else tf.zeros([size], self._dtype)
            for place, size in enumerate(self._sizes)
        ]
        state = [tf.reshape(tf.cast(v, self._dtype), [-1]) for v in self._state]
        summed, summed_state, rate = tf.numpy_function(
            self._make_active_round,
            [
                tf.constant(flags, self._dtype),
                tf.concat(flat, 0),
                tf.concat(state, 0) if state else tf.zeros([0], self._dtype),
                tf.cast(self._optimizer.learning_rate, tf.float64),
            ],
            [self._dtype, self._dtype, tf.float64],
        )
        self._store(summed_state, rate)
        parts = self._split(summed)
        reduced = [
            None if grad is None else tf.cast(parts[place], variable.dtype)
            for place, grad, variable in zip(places, grads, variables, strict=True)
        ]
        with tf.control_dependencies([summed]):  # what the sum does not touch waits as well
            self._apply(reduced, trainable_variables)
        # Reading them orders the count behind their updates, and so behind the whole step.
        with tf.control_dependencies([v.read_value() for v in self._updated]):
            self._steps_done.assign_add(1)

    def _make_active_round(
        self, flags: Array, gradients: Array, state: Array, rate: Array
    ) -> tuple[Array, Array, Array]:
        try:
            return self._add_gradients(flags, gradients, state, float(rate))
        except BaseException as error:
            self.error = error  # TensorFlow hands on its text only
            raise

    def _add_gradients(
        self, flags: Array, gradients: Array, state: Array, rate: float
    ) -> tuple[Array, Array, Array]:
        with self._turn:
            if self._is_over:
                raise UsageError(_OVER)
            rows = self._take_rows(self._rows_given.popleft() if self._rows_given else None)
            self._begun += 1
            mine = Tallies(rows=rows, active=1, rates=(rate,))
            self._vote(mine)
            weight = self._weight_of(rows)
            self._vector.load(mine, flags, gradients, state, weight=weight)
            self._adder.add(self._vector.whole)
            totals = self._vector.tallies()
            self._require_same_flags(flags, totals)
            self.steps += 1
            return (*self._take(totals), np.array(_common_rate(rate, totals)))

    def _require_same_flags(self, flags: Array, totals: Tallies) -> None:
        expected = tuple(round(flag) * totals.active for flag in flags.tolist())
        if self._vector.flags() != expected:
            msg = (
                "ctx.data_parallel: the workers have gradients for different variables in one "
                "step. Use every trainable variable in every step."
            )
            raise UsageError(msg)

    # --- shadow steps ------------------------------------------------------------------

    def _add_numbers(self, numbers: list[float]) -> list[float]:
        with self._turn:
            ballot = np.array(numbers)
            self._adder.add(ballot)
            found: list[float] = ballot.tolist()
            return found

    def _add_nothing(self, mine: Tallies) -> Tallies:
        with self._turn:
            self._vector.clear(mine)
            self._adder.add(self._vector.whole)
            return self._vector.tallies()

    def _step_as_shadow(self, totals: Tallies) -> None:
        flags = self._vector.flags()
        gradients, state = self._take(totals)
        step = self._shadow_steps.get(flags)
        if step is None:
            step = self._shadow_steps[flags] = self._build_shadow_step(flags)
        own = float(self._optimizer.learning_rate)
        step(gradients, state, np.float64(_common_rate(own, totals)))

    def _build_shadow_step(self, flags: tuple[int, ...]) -> Any:
        def step(gradients: tf.Tensor, state: tf.Tensor, rate: tf.Tensor) -> None:
            self._store(state, rate)
            pairs = [
                (tf.cast(part, variable.dtype), variable)
                for part, variable, flag in zip(
                    self._split(gradients), self._variables, flags, strict=True
                )
                if flag
            ]
            self._apply([grad for grad, _ in pairs], [variable for _, variable in pairs])

        signature = [
            tf.TensorSpec([sum(self._sizes)], self._dtype),
            tf.TensorSpec([sum(self._state_sizes)], self._dtype),
            tf.TensorSpec([], tf.float64),
        ]
        return tf.function(step, input_signature=signature, autograph=False)

    # --- both ------------------------------------------------------------------

    def _take(self, totals: Tallies) -> tuple[Array, Array]:
        return self._vector.take(
            gradients_over=self._divisor_of(totals), state_over=totals.rows
        )

    def _store(self, state: tf.Tensor, rate: tf.Tensor) -> None:
        """Give state and learning rate their common values."""
        if self._state:
            parts = tf.split(tf.reshape(state, [sum(self._state_sizes)]), self._state_sizes)
            for variable, part in zip(self._state, parts, strict=True):
                variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))
        if self._rate is not None:
            self._rate.assign(tf.cast(rate, self._rate.dtype))

    def _split(self, flat: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(tf.reshape(flat, [sum(self._sizes)]), self._sizes)
        return [
            tf.reshape(part, variable.shape)
            for part, variable in zip(parts, self._variables, strict=True)
        ]

    def _place_of(self, variable: Any) -> int:
        place = self._index.get(id(variable))
        if place is None:
            msg = (
                f"ctx.data_parallel: the optimizer is to step {variable.name!r}, which is no "
                "trainable variable of the model that was given"
            )
            raise UsageError(msg)
        return place

    def _spread_state(self) -> None:
        """Give every worker the variables of rank 0, of the model and of the optimizer."""
        for variable in (
            *self._variables,
            *self._state,
            *map(raw_variable, self._optimizer.variables),
        ):
            content = np.array(variable.numpy())
            flat = content.reshape(-1)
            self._adder.spread(flat)
            variable.assign(flat.reshape(content.shape))


def _common_rate(own: float, totals: Tallies) -> float:
    """Return the common learning rate; the own one where it is the same but for rounding."""
    (total,) = totals.rates
    mean = total / totals.active
    return own if abs(own - mean) <= _SAME_RATE * abs(own) else mean


_OVER = (
    "optimizer.apply after the common training has ended: all workers have used up their input "
    "and the others may be gone. Train inside the loop over the input."
)
