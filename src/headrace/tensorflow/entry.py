"""From a process that has just started to a TensorFlow entry function."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from headrace._environ import set_environment_value
from headrace._imports import quick_imports
from headrace.errors import ServerLostError
from headrace.framework.process import ProcessSpec
from headrace.framework.stopping import require_no_stop
from headrace.role import (
    RoleContext,
    RoleEntry,
    RoleLink,
    choose_threads,
    let_the_cause_go_first,
)
from headrace.tensorflow.cluster import CHIEF, WORKER, TFCluster
from headrace.tensorflow.context import TFContext
from headrace.tensorflow.settings import TFSettings

__all__ = ["TFEntry"]


class TFEntry(RoleEntry):
    """Runs an entry function with a `TFContext`; travels to the process by cloudpickle.

    Before the function starts, ``TF_CONFIG`` is set, and TensorFlow's threads within an
    operation are the cores of the host divided by its chief and workers, unless the environment
    says OMP_NUM_THREADS.

    Args:
        entry: Function of one argument, the `TFContext`.
        settings: What holds for every process.
    """

    context_class = TFContext

    def __init__(
        self, entry: Callable[[TFContext], object], settings: TFSettings | None = None
    ) -> None:
        super().__init__(entry)
        self.settings = settings or TFSettings()

    def preload(self) -> None:
        """Import TensorFlow; Keras comes with it."""
        import tensorflow  # noqa: F401

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:  # noqa: ARG002
        """Give a new context its settings, threads and ``TF_CONFIG``. Does not block."""
        assert isinstance(context, TFContext)
        with quick_imports():
            import tensorflow as tf

        cluster = TFCluster(role=spec.role, index=spec.index, addresses=spec.addresses)
        set_environment_value("TF_CONFIG", cluster.tf_config)
        training = [role for role in (CHIEF, WORKER) if role in spec.cluster]
        hosts = [host for role in training for host in spec.cluster[role]]
        if spec.role in training:
            threads = choose_threads(hosts, cluster.rank)
            if threads is not None and not _is_started():
                tf.config.threading.set_intra_op_parallelism_threads(threads)
        if context.input_schema is not None:
            # Keras cannot know how long a stream is, and takes its end for an accident.
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        context.use_settings(self.settings)
        context.watch_steps()

    def run(self, context: RoleContext) -> None:
        """Call the function; tell what stands behind an error of TensorFlow's."""
        assert isinstance(context, TFContext)
        import tensorflow as tf

        try:
            super().run(context)
        except tf.errors.OpError as error:
            require_no_stop()  # behind TensorFlow a stop looks like an error of its own
            cause = context.cause_of(error)
            if isinstance(cause, tf.errors.UnavailableError | tf.errors.AbortedError):
                let_the_cause_go_first()  # a peer or parameter server has ended
                if context.has_servers:
                    raise ServerLostError(reason=cause.message) from error
            if cause is not error:
                raise cause from error
            raise
        except ServerLostError:
            let_the_cause_go_first()
            raise


def _is_started() -> bool:
    """Return whether TensorFlow computes already: threads can only be set before."""
    from headrace.tensorflow.internals import is_started

    return is_started()
