"""What torch says of a lost peer, in real processes: an upgrade that changes it fails here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.timeout(120)

_PROCESS = """
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

from headrace.pytorch.group import is_peer_lost

case, rank, port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limit = timedelta(seconds=60)
store = dist.TCPStore(
    "127.0.0.1", port, is_master=rank == 0, wait_for_workers=False, timeout=limit
)
if rank == 0:
    print(store.port, flush=True)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=limit)
if "late" in case:
    limit = timedelta(seconds=2)
store.set_timeout(limit)
group = dist.new_group(timeout=limit)
dist.all_reduce(torch.ones(4), group=group)
print("ready", flush=True)
sys.stdin.readline()
size = 1 << 24 if "large" in case else 4
try:
    if "store" in case:
        store.get("never")
    elif "receive" in case:
        dist.recv(torch.ones(size), 1 - rank, group=group)
    elif "send" in case:
        while True:
            dist.send(torch.ones(size), 1 - rank, group=group)
    elif "object" in case:
        dist.all_gather_object([None, None], rank, group=group)
    else:
        dist.all_reduce(torch.ones(size), group=group)
except RuntimeError as error:
    print(is_peer_lost(error), str(error).partition(chr(10))[0], flush=True)
"""


class Rank:
    """One process of a group of two."""

    def __init__(self, case: str, rank: int, port: int) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", _PROCESS, case, str(rank), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def go(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        self.popen.kill()
        self.popen.communicate()


@contextmanager
def group(case: str) -> Iterator[tuple[Rank, Rank]]:
    """Start ranks 0 and 1, which have met."""
    first = Rank(case, 0, 0)
    try:
        second = Rank(case, 1, int(first.line()))
        try:
            assert (first.line(), second.line()) == ("ready", "ready")
            yield first, second
        finally:
            second.end()
    finally:
        first.end()


@pytest.mark.parametrize(
    "case", ["sum", "large sum", "receive", "send", "large send", "object", "store"]
)
@pytest.mark.parametrize("is_waiting", [False, True], ids=["gone-before", "gone-meanwhile"])
def test_the_end_of_a_killed_peer_is_recognised(case: str, is_waiting: bool) -> None:
    with group(case) as (first, second):
        killed, left = (first, second) if case == "store" else (second, first)
        if is_waiting:
            left.go()
            killed.end()
        else:
            killed.end()
            left.go()
        said = left.line()
        assert said.startswith("True "), said


@pytest.mark.parametrize("case", ["late sum", "late receive", "late store"])
def test_a_time_out_is_no_lost_peer(case: str) -> None:
    with group(case) as (first, second):
        (second if "store" in case else first).go()
        said = (second if "store" in case else first).line()
        assert said.startswith("False "), said
        assert "imed out" in said or "timeout" in said
