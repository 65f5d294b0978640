"""What holds for every test: time limits by folder, and nothing left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headrace.framework.node.family import become_subreaper
from tests.segments import segments

# The limits of pytest-timeout hold; a limit on each example measures how busy the machine is.
settings.register_profile(
    "headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("headrace"), max_examples=5000)
settings.load_profile("headrace")  # `pytest --hypothesis-profile=long` comes later
become_subreaper()  # an orphan of what a test starts is a child of the tests, and is seen

_TIMEOUT_S = {"unit": 20, "conventions": 60}
_CLEANUP_S = 5.0
_LOOKS = 3  # before garbage is collected, which takes a second beside PyTorch and TensorFlow
_ROOT = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("timeout") is None:
            limit_s = _TIMEOUT_S.get(item.path.relative_to(_ROOT).parts[0], 120)
            item.add_marker(pytest.mark.timeout(limit_s))


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Fail a test after which a process, thread, socket, pipe or segment is left.

    What ends by itself within some seconds is not left behind. What a fixture of a wider scope
    has started was there before the test, so it does not count either.
    """
    before = _everything()
    yield
    left = _left_since(before)
    deadline = time.monotonic() + _CLEANUP_S
    looks = 0
    while left and time.monotonic() < deadline:
        looks += 1
        if looks > _LOOKS:
            gc.collect()
        threading.Event().wait(0.05)
        left = _left_since(before)
    if left:
        pytest.fail(f"left behind {_CLEANUP_S} s after the test: {', '.join(sorted(left))}")


def _left_since(before: set[str]) -> set[str]:
    return _everything() - before


def _everything() -> set[str]:
    in_memory = {f"segment {path}" for path in segments()}
    return _threads() | _descendants() | in_memory | _channels()


def _threads() -> set[str]:
    return {
        f"thread {each.name} ({each.native_id})"
        for each in threading.enumerate()
        if not type(each).__module__.startswith("py4j") and "py4j" not in repr(_target(each))
    }


def _target(thread: threading.Thread) -> object:
    return getattr(thread, "_target", None)  # py4j's threads serve the gateway of the session


def _descendants() -> set[str]:
    parents: dict[str, tuple[str, str]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if rest.split()[0] not in "ZX":
            parents[status.parent.name] = (rest.split()[1], name.partition("(")[2])
    found: set[str] = set()
    family = {Path("/proc/self").resolve().name}
    while family:
        children = {pid for pid, (parent, _) in parents.items() if parent in family}
        found |= {f"process {pid} {parents[pid][1]}" for pid in children}
        family = children
    return found


def _channels() -> set[str]:
    found = set()
    of_gateway = _gateway_sockets()
    for descriptor in Path("/proc/self/fd").iterdir():
        if int(descriptor.name) in of_gateway:
            continue
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:
            continue
        if target.startswith(("socket:", "pipe:")):
            found.add(f"file descriptor {descriptor.name} {target}")
    return found


def _gateway_sockets() -> set[int]:
    """PyFlink keeps connections to its JVM for the session, in a pool or lent at the moment."""
    gateway = getattr(sys.modules.get("pyflink.java_gateway"), "_gateway", None)
    if gateway is None:
        return set()
    found: set[int] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(descriptor.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as end:
                if end.getpeername()[1:2] == (gateway._gateway_client.port,):
                    found.add(int(descriptor.name))
    return found
