"""Flink's high availability on this host, from the pip package: a ZooKeeper of one server."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyflink

from headrace._environ import copy_environment
from headrace.framework.node.family import build_parent_watch
from tests.ports import free_ports

__all__ = ["SESSION_S", "high_availability"]

SESSION_S = 4
"""For how long ZooKeeper hears nothing of a JobManager before another one may lead."""
_HOME = Path(pyflink.__file__).parent


@contextmanager
def high_availability(folder: Path) -> Iterator[dict[str, str]]:
    """Start a ZooKeeper; give the options of a cluster whose JobManager may be lost.

    Args:
        folder: Gets `zookeeper`, and `ha` with what Flink stores.
    """
    with _zookeeper(folder / "zookeeper") as port:
        yield {
            "high-availability.type": "zookeeper",
            "high-availability.zookeeper.quorum": f"127.0.0.1:{port}",
            "high-availability.zookeeper.client.session-timeout": f"{SESSION_S} s",
            "high-availability.storageDir": (folder / "ha").as_uri(),
        }


@contextmanager
def _zookeeper(folder: Path) -> Iterator[int]:
    """Start a ZooKeeper of one server on this host; give its port."""
    (port,) = free_ports(1)
    (folder / "conf").mkdir(parents=True)
    (folder / "conf" / "config.yaml").write_text((_HOME / "conf/config.yaml").read_text())
    (folder / "conf" / "zoo.cfg").write_text(
        f"tickTime={SESSION_S * 1000 // 2}\n"  # a session lasts for two ticks or more
        f"dataDir={folder / 'data'}\nclientPortAddress=127.0.0.1\nclientPort={port}\n"
        "admin.enableServer=false\nserver.1=localhost:2888:3888\n"  # alone: no such ports
    )
    process = subprocess.Popen(
        # What `zookeeper.sh start-foreground` runs as a child of its own, which outlives it.
        [
            *("bash", str(_HOME / "bin" / "flink-console.sh"), "zookeeper"),
            *("--zkConfigFile", str(folder / "conf" / "zoo.cfg"), "--peerId", "1"),
        ],
        env={
            **copy_environment(),
            "FLINK_CONF_DIR": str(folder / "conf"),
            "FLINK_LOG_DIR": str(folder),
            "FLINK_PID_DIR": str(folder),
            "JVM_ARGS": "-Xmx128m -Dzookeeper.jmx.log4j.disable=true",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=build_parent_watch(os.getpid()),
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()
