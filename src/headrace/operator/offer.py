"""What a cluster offers in slots, as text for an error message."""

from __future__ import annotations

import json
import urllib.request

from headrace.operator.environment import FlinkEnvironment

__all__ = ["slot_offer"]

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
