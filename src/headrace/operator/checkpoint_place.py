"""Tells in time that a job's checkpoints would be kept where large states do not fit."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Iterable

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import (
    CHECKPOINT_DIR,
    CHECKPOINT_RETENTION,
    CHECKPOINT_STORAGE,
    names_of,
)

__all__ = ["has_directory"]

_LOG = logging.getLogger(__name__)
_PLACES = (CHECKPOINT_DIR, CHECKPOINT_STORAGE)
_REST_TIMEOUT_S = 3.0
_SMALL = (
    "Checkpoints of %s are on, and no directory is set for them%s. Flink then keeps them on "
    "the JobManager's heap, which takes 5 MB of each subtask: a process with a larger state "
    "(ctx.checkpointed, ctx.state, rows for later passes) fails the job at its first "
    "checkpoint. Set `execution.checkpointing.dir` to a directory that all hosts reach."
)
_UNKNOWN = (
    " by this program (what the cluster itself has set is not known: %s; so the last "
    "checkpoint is not kept either, should the job fail)"
)


def has_directory(flink: FlinkEnvironment, job_name: str) -> bool:
    """Return whether the checkpoints of a job go to a directory that the user has set.

    Logs a warning if they go to none; to be asked for jobs that have processes with an input.
    How large a state becomes is not known before the processes run, and a cluster may have a
    directory for all its jobs: so it is no error. The embedded cluster gets a directory, see
    `LocalCheckpoints`, but where the user has said which checkpoints stay and not where. Never
    raises, never blocks for more than 3 s.
    """
    if not flink.has_checkpoints:
        return False
    if flink.option(CHECKPOINT_DIR) is not None:
        return True
    is_chosen = flink.option(CHECKPOINT_STORAGE) is not None
    if flink.is_embedded:
        if flink.option(CHECKPOINT_RETENTION) is not None and not is_chosen:
            _LOG.warning(_SMALL, job_name, "")
        return False
    try:
        own = set(_keys_of_cluster(flink))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        if not is_chosen:
            _LOG.warning(_SMALL, job_name, _UNKNOWN % exc)
        return False
    if not is_chosen and own.isdisjoint(name for key in _PLACES for name in names_of(key)):
        _LOG.warning(_SMALL, job_name, "")
    return not own.isdisjoint(names_of(CHECKPOINT_DIR))


def _keys_of_cluster(flink: FlinkEnvironment) -> Iterable[str]:
    """Return the names of the options that the cluster's JobManager was started with."""
    address = flink.option("rest.address") or "localhost"
    port = flink.option("rest.port") or "8081"
    url = f"http://{address}:{port}/jobmanager/config"
    with urllib.request.urlopen(url, timeout=_REST_TIMEOUT_S) as reply:
        return [each["key"] for each in json.load(reply)]
