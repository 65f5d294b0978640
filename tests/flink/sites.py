"""A standalone cluster over three hosts or more, whose links may be cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .hosts import Network, network
from .standalone import Standalone, standalone_cluster

FLINK_LIMIT_S = 8.0
"""For how long Flink hears nothing of a TaskManager before it takes it for lost."""
SLACK_S = 4.0
"""For the beats between, and a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A cluster over three hosts or more; one slot on each but "boss"."""

    network: Network
    cluster: Standalone


@contextmanager
def open_site(
    folder: Path, options: Mapping[str, str] | None = None, *, more: Sequence[str] = ()
) -> Iterator[Site]:
    """Start one, with the JobManager on "boss", and TaskManagers on "left" and "right".

    Args:
        folder: An empty one, which all hosts have in common.
        options: Further ones of Flink's.
        more: Names of further hosts with a TaskManager.
    """
    with network(folder, ["boss", "left", "right", *more]) as net:
        boss, *others = net.hosts.values()
        patience = {
            "heartbeat.interval": "1000 ms",
            "heartbeat.timeout": f"{int(FLINK_LIMIT_S * 1000)} ms",
            "cluster.registration.error-delay": "500 ms",
        }
        started = standalone_cluster(
            folder,
            master=boss,
            workers=others,
            slots=1,
            options={**patience, **(options or {})},
        )
        with started as cluster:
            yield Site(network=net, cluster=cluster)
