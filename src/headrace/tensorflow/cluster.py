"""The cluster as TensorFlow sees it: who trains, under which address, and who leads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["CHIEF", "EVALUATOR", "PS", "TENSORBOARD", "WORKER", "TFCluster"]

CHIEF = "chief"
EVALUATOR = "evaluator"
PS = "ps"
TENSORBOARD = "tensorboard"
WORKER = "worker"

_MEMBERS = (CHIEF, WORKER, PS)  # who TensorFlow counts as the training cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class TFCluster:
    """One process and the others.

    Attributes:
        role: Role of this process.
        index: Its number within the role.
        addresses: Role to the "host:port" of its processes in the order of their index.
    """

    role: str
    index: int
    addresses: Mapping[str, Sequence[str]]

    @property
    def spec(self) -> dict[str, list[str]]:
        """What `tf.train.ClusterSpec` takes: chief, workers and parameter servers.

        The evaluator is not in it, as in TensorFlow's own convention: it trains with nobody.
        """
        return {
            role: list(self.addresses[role]) for role in _MEMBERS if self.addresses.get(role)
        }

    @property
    def tf_config(self) -> str:
        """The value of the environment variable ``TF_CONFIG`` for this process.

        Source: https://www.tensorflow.org/guide/distributed_training ("TF_CONFIG").
        """
        task = {"type": self.role, "index": self.index}
        return json.dumps({"cluster": self.spec, "task": task})

    @property
    def group_size(self) -> int:
        """Processes that train synchronously with each other: the chief and the workers."""
        return sum(len(self.addresses.get(role, ())) for role in (CHIEF, WORKER))

    @property
    def rank(self) -> int:
        """This process' number among those: the chief's is 0, the workers follow."""
        chiefs = len(self.addresses.get(CHIEF, ()))
        return self.index if self.role == CHIEF else chiefs + self.index

    @property
    def is_chief(self) -> bool:
        """Whether this process leads: the chief, or worker 0 where there is none.

        Source: as `tf_config`; there, worker 0 is the chief of a cluster without one.
        """
        return self.role in (CHIEF, WORKER) and self.rank == 0

    def is_saver(self, *, on_stream: bool) -> bool:
        """Whether this process saves models for all: the one that leads, and an evaluator.

        On the stream worker 0 does, beside a chief too: a chief gets no rows, so it cannot
        tell when they end, and is stopped when they have.
        """
        leads = (self.role, self.index) == (WORKER, 0) if on_stream else self.is_chief
        return leads or self.role == EVALUATOR

    @property
    def host(self) -> str:
        """Where this process runs, as the others reach it."""
        address = self.addresses[self.role][self.index]
        return address.rpartition(":")[0].strip("[]")

    @property
    def servers(self) -> list[str]:
        """Addresses of the parameter servers."""
        return list(self.addresses.get(PS, ()))
