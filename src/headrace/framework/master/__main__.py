"""The master process: `python -m headrace.framework.master`, started by the am operator.

Reads the `start` line, binds a port, says `listening`, and serves until the JVM says `stop`
or is gone. Exit code 0 after `stop` and after the end of the JVM, 1 after an error of its own.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import traceback
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NoReturn

from headrace.errors import HeadraceError, ProtocolError
from headrace.framework.child import end_process, prepare_child, remove_work_dir
from headrace.framework.clock import SystemClock
from headrace.framework.jvm import JvmLink
from headrace.framework.jvm_lines import FailLine, ListeningLine, StartLine, StopLine
from headrace.framework.machine import (
    JobMachine,
    Machine,
    MasterStarted,
    RoleFacts,
    encode_event,
    encode_job,
    shipped_machine,
)
from headrace.framework.master.master import Master
from headrace.framework.master.service import NodeService
from headrace.framework.payload import load_machine
from headrace.framework.rpc.server import MasterServer
from headrace.framework.rpc.tls import take_identity
from headrace.framework.spec import MasterSpec, read_master_spec

__all__ = ["main"]

_LOG = logging.getLogger(__name__)
_FLUSH_S = 1.0
_GONE_S = 0.1  # the end of its pipes has come by then
_STOP_S = 0.2


async def _run(jvm: JvmLink) -> None:
    """Serve until the JVM says stop or is gone; leave no directory without it."""
    start = await jvm.receive_first()
    if start is None:
        return
    if not isinstance(start, StartLine) or start.token is None:
        kind = type(start).__name__  # not the line itself: it may hold the job's token
        msg = f"The first line of a master must be `start` with a token, not {kind}"
        raise ProtocolError(msg)
    jvm.watch(start.jvm_frozen_timeout_s)
    try:
        await _serve_job(jvm, start)
    except BaseException:
        # A JVM that lives may start another master in the directory, and removes it itself.
        if await jvm.is_gone(_GONE_S):
            remove_work_dir(start)
        raise
    remove_work_dir(start)


async def _serve_job(jvm: JvmLink, start: StartLine) -> None:
    spec = read_master_spec(start.spec_path)
    machine = _open_machine(spec, start)
    path = _log_path(start)
    path.touch(mode=0o600, exist_ok=False)
    with path.open("wb", buffering=0) as file:
        log = _EventLog(file)
        log.write(encode_job(machine.job))
        master = Master(
            machine=machine,
            timeouts=spec.timeouts,
            clock=SystemClock(),
            send=jvm.send,
            record=lambda event: log.write(encode_event(event)),
        )
        await _serve(master, start, jvm)


class _EventLog:
    """What a replay needs, in whole lines. Ends where the disk is full; the job goes on."""

    def __init__(self, file: FileIO) -> None:
        self._file: FileIO | None = file

    def write(self, line: bytes) -> None:
        if self._file is None:
            return
        begin = self._file.tell()
        try:
            written = self._file.write(line)
            if written != len(line):  # what a disk that is nearly full does first
                self._file.truncate(begin)
                self._end(f"{written} of {len(line)} bytes could be written")
        except OSError as exc:
            self._end(str(exc))

    def _end(self, why: str) -> None:
        _LOG.warning("the event log of the master ends here: %s", why)
        self._file = None


def _log_path(start: StartLine) -> Path:
    """Return a new file for the events; each master process writes one of its own."""
    directory = Path(start.work_dir)
    number = len(list(directory.glob("events-*.jsonl")))
    return directory / f"events-{number}.jsonl"


async def _serve(master: Master, start: StartLine, jvm: JvmLink) -> None:
    assert start.token is not None
    identity = take_identity(start.tls)
    server = MasterServer(NodeService(master), start.token, identity=identity)
    address = await server.start(start.host)
    watch = asyncio.create_task(master.watch(), name="heartbeats")
    jvm.send(ListeningLine(address=address))
    _LOG.info("listening on %s, attempt %d", address, start.attempt)
    master.post(MasterStarted(attempt=start.attempt))
    listen = asyncio.create_task(_listen(jvm), name="jvm")
    try:
        done, _ = await asyncio.wait({watch, listen}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        watch.cancel()
        listen.cancel()
        try:
            await asyncio.wait({watch, listen}, timeout=_STOP_S)
        finally:
            master.close()
            await server.stop(_STOP_S)


async def _listen(jvm: JvmLink) -> None:
    """Return when the JVM says stop or is gone."""
    line = await jvm.receive()
    if line is None:
        _LOG.warning("the JVM is gone: the master ends")
    elif isinstance(line, StopLine):
        _LOG.info("stopped: %s", line.reason)
    else:
        msg = f"A master cannot take {type(line).__name__}"
        raise ProtocolError(msg)


def _open_machine(spec: MasterSpec, start: StartLine) -> JobMachine:
    roles = {
        name: RoleFacts(planned_parallelism=plan.planned_parallelism, has_input=plan.has_input)
        for name, plan in spec.roles.items()
    }
    machine: Machine
    if spec.machine is not None:
        machine = shipped_machine(spec.machine)
    elif start.payload_path is not None:
        machine = load_machine(start.payload_path)
    else:
        msg = "The master's spec names no state machine, and there is no payload with one"
        raise ProtocolError(msg)
    job = machine.initial_job(
        roles, max_restarts=spec.max_restarts, attempt=start.attempt, restarts=start.restarts
    )
    return JobMachine(machine, job)


async def _main(to_jvm: BinaryIO) -> NoReturn:
    jvm = await JvmLink.open(to_jvm)
    loop = asyncio.get_running_loop()
    run = asyncio.create_task(_run(jvm), name="master")
    loop.add_signal_handler(signal.SIGTERM, run.cancel)
    exit_code = 0
    try:
        await run
    except asyncio.CancelledError:
        _LOG.info("ended by SIGTERM")
    except Exception as exc:  # noqa: BLE001 - whatever it is, the JVM must be told
        _LOG.exception("the master failed")
        is_ours = isinstance(exc, HeadraceError) and not isinstance(exc, ProtocolError)
        text = str(exc) if is_ours else traceback.format_exc()
        jvm.send(FailLine(message=f"The master failed: {text}", is_restartable=False))
        exit_code = 1
    await jvm.flush(_FLUSH_S)
    end_process(exit_code)  # the end of the loop would wait for threads


def main() -> None:
    """Run the master process; does not return."""
    to_jvm = prepare_child("master")
    asyncio.run(_main(to_jvm))


if __name__ == "__main__":
    main()
