"""Who saves from parameter servers waits until the rows of all workers are used up."""

from __future__ import annotations

from pathlib import Path

from headrace.errors import WaitTimeoutError
from headrace.tensorflow import TFContext
from headrace.tensorflow.served import ServedSteps
from tests.unit.role.doubles import FakeLink, spec_in


class Member:
    """A worker of a group whose published values are in one mapping."""

    role = "worker"
    parallelism = 3

    def __init__(self, index: int, values: dict[str, str]) -> None:
        self.index = index
        self._values = values

    @property
    def is_saver(self) -> bool:
        return self.index == 0

    def publish(self, key: str, value: str) -> None:
        assert key not in self._values, "it says so once"
        self._values[key] = value

    def lookup(self, key: str, timeout_s: float) -> str:
        if key not in self._values:
            raise WaitTimeoutError(waited_for=key, waited_s=timeout_s, setting="none")
        return self._values[key]


def test_the_one_that_saves_attends_until_the_last_of_the_others_is_over() -> None:
    values: dict[str, str] = {}
    first, second, third = (ServedSteps(Member(index, values)) for index in range(3))
    attended = []

    def attend() -> None:
        attended.append(len(values))
        if len(attended) == 3:
            second.finish(attend)
        if len(attended) == 5:
            third.settle(attend)  # it does not save, so it waits for nobody
            third.finish(attend)

    first.settle(attend)
    assert attended == [1, 1, 1, 2, 2]
    first.settle(attend)
    assert len(attended) == 5


def test_a_worker_that_never_used_the_servers_says_so_too(tmp_path: Path) -> None:
    link = FakeLink()
    ports = {"worker": (1, 1), "ps": (2,)}
    ctx = TFContext(spec=spec_in(tmp_path, ports=ports), link=link)
    assert link.published == {}
    ctx.close(is_success=True)
    assert link.published == {"headrace/trained/worker-1": "yes"}
