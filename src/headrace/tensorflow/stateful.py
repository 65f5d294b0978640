"""TensorFlow's objects as what Flink's checkpoints keep: something with a `state_dict`.

Variables are kept in the order in which their owner has them, with their names, less the
numbers that count what was made before in the process. Those on parameter servers are kept by
one worker for all.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from headrace.errors import ConfigError, ExchangeError, ServerLostError
from headrace.tensorflow.internals import view_of
from headrace.tensorflow.ps_scope import is_on_server
from headrace.tensorflow.variables import raw_variable

__all__ = ["as_stateful", "served_names"]

_OF_A_CONNECTION = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)
_COUNTS = re.compile(r"_\d+|:\d+$")  # of what the process has made before


def as_stateful(
    objects: Mapping[str, Any],
    directory: Path,
    *,
    has_servers: bool = False,
    keeps_served: bool = True,
) -> dict[str, Any]:
    """Return for each object itself, or what stands for it, with `state_dict`.

    Optimizers are built where they are not, for the model that they belong to.

    Args:
        objects: Keras models, layers and optimizers, variables, generators of random numbers,
            `tf.Module`, and `tf.train.Checkpoint`; others are returned as they are.
        directory: For the files of a `tf.train.Checkpoint`.
        has_servers: Whether the job has parameter servers.
        keeps_served: Whether this process keeps, and sets, variables that are on them.

    Raises:
        ConfigError: A model is not built, an optimizer is not and belongs to no one model, or
            there is a `tf.train.Checkpoint` in a job with parameter servers.
    """
    models = [each for each in objects.values() if isinstance(each, keras.Model)]
    found = {}
    for name, each in objects.items():
        if has_servers and isinstance(each, tf.train.Checkpoint):
            raise ConfigError(_ON_THEIR_HOSTS.format(name=name))
        stateful = _stateful(name, each, models, directory)
        if isinstance(stateful, _Variables) and served_names(stateful):
            stateful = _Served(stateful.of, keeps_served=keeps_served)
        found[name] = stateful
    return found


def served_names(stateful: Any) -> Collection[str]:
    """Return the names on their servers of the variables in what `as_stateful` returned."""
    if not isinstance(stateful, _Variables):
        return []
    return [raw_variable(each).shared_name for each in stateful.of() if is_on_server(each)]


class _Variables:
    """The variables of an object."""

    def __init__(self, of: Callable[[], Iterable[Any]]) -> None:
        self.of = of

    def state_dict(self) -> dict[str, Any]:
        """Return the values; those on this process' CPU share memory with the variables.

        What is assigned later goes elsewhere and leaves them as they are; as long as they are
        kept, it takes memory of its own for that.
        """
        return {name: _value_of(each) for name, each in self._named().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the variables.

        Raises:
            ValueError: They are others, or of other shapes; nothing was set.
        """
        named = self._named()
        fits = named.keys() == state.keys() and all(
            tuple(each.shape) == state[name].shape for name, each in named.items()
        )
        if not fits:
            msg = "its variables are others"
            raise ValueError(msg)
        for name, each in named.items():
            each.assign(np.array(state[name]))  # a copy: TensorFlow may keep what it is given

    def _named(self) -> dict[str, Any]:
        return {
            f"{number} {_COUNTS.sub('', each.name)}": each
            for number, each in enumerate(self.of())
        }


class _Served(_Variables):
    """The variables of an object of which some are on parameter servers.

    Args:
        of: Returns them all.
        keeps_served: Whether this process keeps, and sets, those on servers.
    """

    def __init__(self, of: Callable[[], Iterable[Any]], *, keeps_served: bool) -> None:
        super().__init__(of)
        self._keeps_served = keeps_served

    def for_others(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return what other processes need of a state of this one: nothing on servers."""
        on_servers = super()._named().keys() - self._of_this_process().keys()
        return {name: value for name, value in state.items() if name not in on_servers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Set the variables; see `_Variables.load_state_dict`.

        Raises:
            ServerLostError: A parameter server has ended.
        """
        try:
            super().load_state_dict(state if self._keeps_served else self.for_others(state))
        except _OF_A_CONNECTION as exc:
            raise ServerLostError(reason=exc.message) from exc

    def _named(self) -> dict[str, Any]:
        return super()._named() if self._keeps_served else self._of_this_process()

    def _of_this_process(self) -> dict[str, Any]:
        return {n: each for n, each in super()._named().items() if not is_on_server(each)}


class _Files:
    """All that a `tf.train.Checkpoint` writes.

    It writes files, so its state goes to a disk and back while the training waits.
    """

    is_costly = True

    def __init__(self, checkpoint: tf.train.Checkpoint, directory: Path) -> None:
        self._checkpoint = checkpoint
        self._directory = directory

    def state_dict(self) -> dict[str, Any]:
        """Return the bytes of its files.

        Raises:
            ExchangeError: They cannot be written.
        """
        with self._writing(), tempfile.TemporaryDirectory(dir=self._directory) as place:
            self._checkpoint.write(str(Path(place, "state")))
            return {each.name: np.fromfile(each, np.uint8) for each in Path(place).iterdir()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Read it; variables that are made later find their values there, too.

        Raises:
            AssertionError: An object that is there now was not in the checkpoint.
            ExchangeError: The files cannot be written.
        """
        with self._writing():
            place = Path(tempfile.mkdtemp(dir=self._directory))  # as long as the process
            for name, content in state.items():
                (place / name).write_bytes(content)
        self._checkpoint.read(str(place / "state")).assert_existing_objects_matched()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, tf.errors.OpError) as exc:
            msg = (
                f"The files of a tf.train.Checkpoint cannot be written to {self._directory}: "
                f"{exc}. It goes into Flink's checkpoints, and comes out of them, by way of "
                "them. Make room in the directories that Flink's `io.tmp.dirs` names; or name "
                "models, optimizers and variables to ctx.checkpointed, which need no files"
            )
            raise ExchangeError(msg) from exc


def _value_of(variable: Any) -> Any:
    raw = raw_variable(variable)
    if is_on_server(raw):  # it is sent: there is nothing to share
        return np.asarray(raw.read_value())
    return view_of(raw)


def _stateful(name: str, each: Any, models: list[keras.Model], directory: Path) -> Any:
    if isinstance(each, tf.train.Checkpoint):
        return _Files(each, directory)
    if isinstance(each, tf.Variable | keras.Variable):
        return _Variables(lambda: [each])
    if isinstance(each, tf.random.Generator | keras.random.SeedGenerator):
        return _Variables(lambda: [each.state])
    if isinstance(each, keras.optimizers.Optimizer):
        _build(name, each, models)
    elif isinstance(each, keras.layers.Layer):
        if not each.built:
            msg = (
                f"ctx.checkpointed({name}=...): the model is not built, so it has no variables "
                "yet. Give it an Input layer, or call model.build(input_shape)."
            )
            raise ConfigError(msg)
    elif not isinstance(each, tf.Module):
        return each
    return _Variables(lambda: each.variables)


def _build(name: str, optimizer: Any, models: list[keras.Model]) -> None:
    if optimizer.built:
        return
    own = [each for each in models if getattr(each, "optimizer", None) is optimizer]
    candidates = own or models
    if len(candidates) != 1 or not candidates[0].built:
        msg = (
            f"ctx.checkpointed({name}=...): the optimizer is not built, so it has no variables "
            "yet. Name the one model that it trains beside it, or call "
            "optimizer.build(model.trainable_variables)."
        )
        raise ConfigError(msg)
    optimizer.build(candidates[0].trainable_variables)


_ON_THEIR_HOSTS = (
    "ctx.checkpointed({name}=...): with parameter servers a tf.train.Checkpoint writes its "
    "files on the hosts of the servers. Name models, optimizers and variables themselves"
)
