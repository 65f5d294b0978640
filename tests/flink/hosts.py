"""Hosts as namespaces: each has an own network, process numbers, /tmp and /dev/shm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .standalone import Host

_SCRIPT = Path(__file__).with_name("hosts.sh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """Hosts on one switch.

    Attributes:
        hosts: By name.
        links: The switch's end of each host's cable.
    """

    hosts: dict[str, Host]
    links: dict[str, str]

    def cut(self, name: str) -> None:
        """Take a host off the network: what is sent to and from it vanishes without a reset."""
        _ip("link", "set", self.links[name], "down")

    def mend(self, name: str) -> None:
        """Put it back."""
        _ip("link", "set", self.links[name], "up")


@contextmanager
def network(folder: Path, names: Sequence[str]) -> Iterator[Network]:
    """Make hosts, and remove them again whatever happens.

    Those of test processes that were killed are removed first.

    Skips the test where the machine does not allow it.

    Args:
        folder: What all hosts have in common.
        names: Of the hosts.
    """
    reason = obstacle()
    if reason:
        pytest.skip(f"two hosts need network namespaces: {reason}")
    _remove_left()
    number = os.getpid()
    switch = f"hrs{number}"
    subnet = f"10.213.{number % 250 + 1}"
    (folder / "tmp").mkdir()
    hosts: dict[str, Host] = {}
    links: dict[str, str] = {}
    with ExitStack() as stack:
        _ip("link", "add", switch, "type", "bridge")
        stack.callback(_ip, "link", "del", switch)
        _ip("address", "add", f"{subnet}.254/24", "dev", switch)
        _ip("link", "set", switch, "up")
        for place, name in enumerate(names, start=1):
            space, link, inner = (
                f"hr{number}-{name}",
                f"hrl{number}.{place}",
                f"hri{number}.{place}",
            )
            address = f"{subnet}.{place}"
            _ip("netns", "add", space)
            stack.callback(_ip, "netns", "del", space)
            _ip("link", "add", link, "type", "veth", "peer", "name", inner)
            stack.callback(_ip, "link", "del", link)
            _ip("link", "set", link, "master", switch, "up")
            _ip("link", "set", inner, "netns", space)
            _ip("-n", space, "address", "add", f"{address}/24", "dev", inner)
            _ip("-n", space, "link", "set", inner, "up")
            _ip("-n", space, "link", "set", "lo", "up")
            own = (
                "unshare",
                "--mount",
                "--uts",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
            )
            become = ("bash", str(_SCRIPT), name, str(folder), _programs())
            inside = ("ip", "netns", "exec", space, *own, *become)
            hosts[name] = Host(name=name, address=address, inside=inside)
            links[name] = link
        lines = [
            "127.0.0.1 localhost",
            *(f"{each.address} {each.name}" for each in hosts.values()),
        ]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        yield Network(hosts=hosts, links=links)


def _remove_left() -> None:
    """Remove the networks of processes that are gone; nobody runs there any more."""
    names = {
        r"hr(\d+)-\w+": ("netns", Path("/run/netns")),
        r"hrs(\d+)": ("link", Path("/sys/class/net")),
    }
    for pattern, (kind, folder) in names.items():
        for each in sorted(folder.iterdir()) if folder.exists() else []:
            found = re.fullmatch(pattern, each.name)
            if found and not Path("/proc", found[1]).exists():
                subprocess.run(["ip", kind, "del", each.name])  # another may be as quick


def _programs() -> str:
    """Return where checkout, environment and interpreter lie, none inside another."""
    places = {Path(__file__).resolve().parents[2], Path(sys.prefix), Path(sys.base_prefix)}
    return ":".join(str(place) for place in sorted(places) if not places & set(place.parents))


def obstacle() -> str:
    """Return why this machine cannot have namespaces; empty if it can."""
    if os.getuid() != 0:
        return "only root may make them"
    missing = [
        name for name in ("ip", "unshare", "mount", "hostname") if not shutil.which(name)
    ]
    if missing:
        return f"{', '.join(missing)} not installed"
    probe = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    tried = ["ip", "link", "add", "hrprobe", "type", "veth", "peer", "name", "hrprobe1"]
    done = subprocess.run([*probe, *tried], capture_output=True, text=True)
    return done.stderr.strip()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"
