"""Clients of one parameter server that come at the same instant, and that die and come back.

As a program it measures: ``python -m tests.faults.tensorflow.restarts --restarts 50``.

A client is a fork of a process that has imported TensorFlow and has not started it, so a new
one costs no import; each is a client of its own, with its own address and runtime.
"""

from __future__ import annotations

import argparse
import mmap
import os
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace import testing
from headrace.config import RoleConfig, TimeoutConfig
from headrace.framework.process import ProcessSpec
from headrace.role import RoleContext, RoleEntry, RoleLink
from headrace.tensorflow import ServerEntry
from headrace.tensorflow.cluster import PS, WORKER, TFCluster
from tests.waiting import until

_COUNT = "q"
_AT_ONCE = 4
_STEPS = 5
_LIMIT_S = 120.0
_PID = "ps/pid"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What happens in one run.

    Attributes:
        rounds: How often four clients connect at the same instant.
        restarts: How often a client is killed and comes back at another address.
    """

    rounds: int
    restarts: int

    def __call__(self, ctx: RoleContext) -> None:
        """Be the parent of all clients; runs in a process of its own."""
        import keras  # noqa: F401 - the clients find it imported

        from headrace.tensorflow import ps_client

        server = _Server(int(ctx.lookup(_PID, 100.0)))
        links = {key: ctx.lookup(key, 100.0) for key in ("ps/ready/0", ps_client.LEASE_KEY)}
        parent = _Parent(ctx.addresses[PS], _Known(links))
        for _ in range(self.rounds):
            parent.connect_at_once()
        trainer = parent.start(index=0, steps=None)
        until(lambda: trainer.count, "step of the other client")
        parent.lose_one()  # what the server keeps for good is there now
        before = server.look()
        for _ in range(self.restarts):
            steps = trainer.count
            parent.lose_one()
            until(lambda was=steps: trainer.count > was, "step of the other client")  # type: ignore[misc]
        after = server.look()
        trainer.kill()
        for name, seen in (("before", before), ("after", after)):
            ctx.report(**{f"{name}.{what}": value for what, value in seen.items()})


class NamedServer(ServerEntry):
    """Tells its process id."""

    def prepare(self, context: RoleContext, spec: ProcessSpec, link: RoleLink) -> None:
        super().prepare(context, spec, link)
        link.publish(_PID, str(os.getpid()))


def run(plan: Plan, *, timeout_s: float) -> dict[str, float]:
    """Return what the server held, in MiB and threads, before and after the restarts."""
    result = testing.run(
        RoleEntry(plan),
        others={PS: RoleConfig(entry=NamedServer(), has_port=True)},
        timeout_s=timeout_s,
    )
    return result.workers[0].report


@dataclass
class _Known:
    """A link on which everything was looked up already."""

    values: Mapping[str, str]

    def lookup(self, key: str, timeout_s: float) -> str:
        return self.values[key]

    def publish(self, key: str, value: str) -> None:
        raise NotImplementedError

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        raise NotImplementedError

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        raise NotImplementedError


@dataclass
class _Server:
    pid: int

    def look(self) -> dict[str, float]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        kib = float(facts["VmRSS"].split()[0])
        return {"mib": kib / 1024, "threads": float(facts["Threads"])}


class _Client:
    """A forked process that counts its steps where its parent sees it."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self._shared = mmap.mmap(-1, struct.calcsize(_COUNT))
        self.pid = os.fork()
        if self.pid:
            return
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            work(self._step)
            os._exit(0)
        except BaseException:  # noqa: BLE001 - nothing of the parent's may run in here
            traceback.print_exc()
            os._exit(1)

    @property
    def count(self) -> int:
        (count,) = struct.unpack_from(_COUNT, self._shared)
        return int(count)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _step(self) -> None:
        struct.pack_into(_COUNT, self._shared, 0, self.count + 1)


class _Parent:
    def __init__(self, servers: Any, link: _Known) -> None:
        self._servers = list(servers)
        self._link = link

    def start(self, *, index: int, steps: int | None, gate: mmap.mmap | None = None) -> _Client:
        """Start a client that makes `steps` steps, or steps for ever."""

        def work(note: Callable[[], None]) -> None:
            if gate is not None:
                note()
                until(lambda: gate[0], "opened gate")
            step = self._connect(index)
            made = 0
            while steps is None or made < steps:
                step()
                note()
                made += 1

        return _Client(work)

    def lose_one(self) -> None:
        """Let a client come at a new address, train, and die."""
        client = self.start(index=1, steps=None)
        until(lambda: client.count >= _STEPS, "steps of a client", _LIMIT_S)
        client.kill()

    def connect_at_once(self) -> None:
        gate = mmap.mmap(-1, 1)
        clients = [self.start(index=i, steps=1, gate=gate) for i in range(_AT_ONCE)]
        until(lambda: all(client.count for client in clients), "clients at the gate", _LIMIT_S)
        gate[0] = 1
        codes = [client.wait() for client in clients]
        assert codes == [0] * _AT_ONCE, codes

    def _connect(self, index: int) -> Callable[[], object]:
        import keras
        import tensorflow as tf

        from headrace.tensorflow.ps_client import ParameterServers

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            mine = f"127.0.0.1:{free.getsockname()[1]}"
        cluster = TFCluster(
            role=WORKER,
            index=index,
            addresses={PS: self._servers, WORKER: [mine] * (index + 1)},
        )
        servers = ParameterServers(cluster, self._link, TimeoutConfig())
        optimizer = keras.optimizers.Adam(0.01)
        with servers.scope():
            model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(64)])
        x = tf.ones((32, 16))

        def step() -> None:
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(model(x) ** 2)
            found = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(found, model.trainable_variables)

        call: Callable[[], object] = tf.function(step)
        return call


def main() -> None:
    """Print what the server held."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--restarts", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    plan = Plan(rounds=args.rounds, restarts=args.restarts)
    for name, value in run(plan, timeout_s=1800.0).items():
        print(f"{name:16} {value:8.1f}")  # noqa: T201


if __name__ == "__main__":
    main()
