"""What a job needs in slots and a cluster offers, as text for an error message."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Mapping

from headrace.config import RoleConfig
from headrace.operator.environment import FlinkEnvironment

__all__ = ["lack_text", "slot_offer"]

_REST_TIMEOUT_S = 3.0


def slot_offer(flink: FlinkEnvironment) -> str:
    """Describe the slots that the target offers now.

    Never raises, never blocks for more than 3 s.
    """
    if flink.is_embedded:
        slots = flink.option("taskmanager.numberOfTaskSlots")
        managers = flink.option("local.number-taskmanager") or "1"
        if slots is None:
            return "the embedded mini-cluster, which makes as many slots as the job needs"
        return f"{managers} TaskManager(s) of {slots} slot(s) each in the embedded mini-cluster"
    address = flink.option("rest.address") or "localhost"
    port = flink.option("rest.port") or "8081"
    try:
        url = f"http://{address}:{port}/overview"
        with urllib.request.urlopen(url, timeout=_REST_TIMEOUT_S) as reply:
            overview = json.load(reply)
        return (
            f"{overview['slots-available']} of {overview['slots-total']} slot(s) free on "
            f"{overview['taskmanagers']} TaskManager(s) when the job was submitted"
        )
    except (OSError, ValueError, KeyError) as exc:
        return f"unknown ({address}:{port} did not tell: {exc})"


def lack_text(roles: Mapping[str, RoleConfig], offer: str) -> str:
    """Return what a job needs that Flink did not start for want of slots.

    Args:
        roles: All of them by name; they share slots.
        offer: What there was, from `slot_offer`.
    """
    bounds = {
        name: (role.min_parallelism or role.parallelism, role.parallelism)
        for name, role in roles.items()
    }
    needed = max(least for least, _ in bounds.values())
    counts = ", ".join(
        f"{name}: {most}" if least == most else f"{name}: {least} to {most}"
        for name, (least, most) in bounds.items()
    )
    return (
        f"Needed: at least {needed} task slot(s), for as many processes of each role as are "
        f"enough ({counts}). Offered: {offer}. Flink waits for slots as long as "
        "`jobmanager.adaptive-scheduler.submission.resource-wait-timeout` "
        "says; without its adaptive scheduler, `slot.request.timeout`."
    )
