"""The node process: `python -m headrace.framework.node`, started by a role operator.

Exit code 0 after `stop` and after the end of the JVM, 1 after a `fail` line. In every case
nothing that it has started is left.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import traceback
from typing import BinaryIO, NoReturn

from headrace.errors import HeadraceError, ProtocolError
from headrace.framework.child import end_process, prepare_child, remove_work_dir
from headrace.framework.clock import SystemClock
from headrace.framework.jvm import JvmLink
from headrace.framework.jvm_lines import (
    FailLine,
    FromJvm,
    PrepareLine,
    SpareLine,
    StartLine,
    StopLine,
)
from headrace.framework.node.ahead import AheadProcess
from headrace.framework.node.family import become_subreaper
from headrace.framework.node.node import Node
from headrace.framework.node.spare import SpareNode
from headrace.framework.spec import read_node_spec

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_FLUSH_S = 0.2
_GONE_S = 0.1  # the end of its pipes has come by then


async def _run(jvm: JvmLink) -> int:
    first = await jvm.receive_first()
    if first is None:
        return 0
    if isinstance(first, PrepareLine):
        jvm.watch(first.jvm_frozen_timeout_s)
        return await _run_spare(first, jvm)
    start = _require_start(first)
    jvm.watch(start.jvm_frozen_timeout_s)
    return await _run_node(start, jvm)


async def _run_spare(prepare: PrepareLine, jvm: JvmLink) -> int:
    """Make ready what a node of the role needs, and run as one when it is known which."""
    line: FromJvm | None = None
    spare = SpareNode(prepare, jvm)
    try:
        line = await spare.wait()
        if line is None or isinstance(line, StopLine):
            return 0
        start = _require_start(line)
        jvm.send(SpareLine(state="taken"))
        return await _run_node(start, jvm, spare.take())
    finally:
        await spare.close()
        # A JVM that lives may start another node in the directory, and removes it itself.
        if not isinstance(line, StartLine) and await jvm.is_gone(_GONE_S):
            remove_work_dir(prepare)


async def _run_node(start: StartLine, jvm: JvmLink, ahead: AheadProcess | None = None) -> int:
    try:
        try:
            node = Node(start, read_node_spec(start.spec_path), jvm, SystemClock(), ahead)
        except BaseException:
            if ahead is not None:
                await ahead.end()
            raise
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, node.end, 0)
        loop.add_signal_handler(signal.SIGCHLD, node.reap_orphans)
        return await node.run()
    finally:
        remove_work_dir(start)


def _require_start(line: FromJvm) -> StartLine:
    if isinstance(line, StartLine):
        return line
    kind = type(line).__name__  # not the line itself: it may hold the job's token
    msg = f"The first line of a node must be `start`, not {kind}"
    raise ProtocolError(msg)


async def _main(to_jvm: BinaryIO) -> NoReturn:
    jvm = await JvmLink.open(to_jvm)
    try:
        exit_code = await _run(jvm)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the JVM must be told
        _LOG.exception("the node failed")
        is_ours = isinstance(exc, HeadraceError) and not isinstance(exc, ProtocolError)
        text = str(exc) if is_ours else traceback.format_exc()
        jvm.send(FailLine(message=f"The node failed: {text}", is_restartable=False))
        exit_code = 1
    await jvm.flush(_FLUSH_S)
    end_process(exit_code)  # the end of the loop would wait for threads: a runner's, a GPU's


def main() -> None:
    """Run the node process; does not return."""
    to_jvm = prepare_child("node")
    become_subreaper()
    asyncio.run(_main(to_jvm))


if __name__ == "__main__":
    main()
