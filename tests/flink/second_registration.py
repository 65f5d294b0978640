"""A program that speaks with the master of a running job as if it were one of its nodes.

Argument: a JSON file with the line `master` that the node got and its registration as in the
master's event log. Prints what the master answered, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import HeadraceError
from headrace.framework.machine import ProcessState
from headrace.framework.messages import Register, ReportEnd
from headrace.framework.rpc.client import MasterClient

_CALL_S = 10.0


async def main(known: dict[str, Any]) -> dict[str, Any]:
    node = msgspec.structs.replace(
        msgspec.convert(known["registration"], Register),
        process=ProcessState.RUNNING,
        process_attempt=1,
    )
    client = MasterClient(known["master"]["address"], known["master"]["token"])
    try:
        again = [await client.register(node, timeout_s=_CALL_S) for _ in range(3)]
        other = msgspec.structs.replace(
            node, instance="another", process=ProcessState.NONE, process_attempt=None
        )
        second = await client.register(other, timeout_s=_CALL_S)
        stale = await _first_refusal(client, node)
        end = ReportEnd(
            node=node.node,
            instance=node.instance,
            attempt=node.attempt,
            outcome=ProcessState.FINISHED,
        )
        late = await _refusal(client.report_end(end, timeout_s=_CALL_S))
    finally:
        await client.close()
    return {
        "again": [reply.attempt for reply in again],
        "second": second.attempt,
        "stale": stale,
        "late": late,
    }


async def _first_refusal(client: MasterClient, node: Register) -> str:
    """Register until the next attempt has begun: the master then refuses the older one."""
    refusal = "accepted"
    while refusal == "accepted":
        refusal = await _refusal(client.register(node, timeout_s=_CALL_S))
    return refusal


async def _refusal(call: Any) -> str:
    try:
        await call
    except HeadraceError as exc:
        return type(exc).__name__
    return "accepted"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(json.loads(Path(sys.argv[1]).read_text())))))
