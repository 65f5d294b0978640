"""TensorFlow's own server in a process, for as long as the job runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:  # a program that plans a job needs no TensorFlow
    import tensorflow as tf

    from headrace.tensorflow.context import TFContext

__all__ = ["serve", "start_server", "wait_for_the_end"]


def serve(ctx: TFContext) -> NoReturn:
    """Serve a chief: the entry function of workers that `ClusterCoordinator` drives.

    Starts a `tf.distribute.Server` on the port that is kept for this process and waits until
    the node ends it, which is no failure. `Server.join` in a function of yours does the same,
    but hears nothing of the end: such a process is killed after `timeouts.stop_grace_s`.

    Example:
        >>> plan = headrace.tensorflow.train(
        ...     None, headrace.tensorflow.serve, workers=2, ps=1, chief=lead
        ... )  # doctest: +SKIP
    """
    _server = start_server(ctx.cluster_spec, role=ctx.role, index=ctx.index)
    wait_for_the_end()


def start_server(
    cluster_spec: dict[str, list[str]], *, role: str, index: int
) -> tf.distribute.Server:
    """Return a server that listens at its address in `cluster_spec`. Does not block.

    It serves for as long as something refers to it.
    """
    import tensorflow as tf

    spec = tf.train.ClusterSpec(cluster_spec)
    return tf.distribute.Server(spec, job_name=role, task_index=index)


def wait_for_the_end() -> NoReturn:
    """Block until the node ends the process, by `StopRequestedExit`. Main thread."""
    while True:
        threading.Event().wait()
