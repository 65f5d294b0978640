"""What a node has to know to start its algorithm process."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

from headrace._environ import ARCHIVES, LEASED_GPU, environment_value
from headrace.errors import ConfigError, ProtocolError
from headrace.framework.jvm_lines import StartLine
from headrace.framework.messages import StartProcess
from headrace.framework.node.ahead import AheadProcess
from headrace.framework.node.gpu import GpuLease, take_gpu
from headrace.framework.node.life import LifePlan
from headrace.framework.payload import load_runner
from headrace.framework.process import ProcessSpec
from headrace.framework.rpc.library import inherited_environment
from headrace.framework.runner import (
    Runner,
    RunnerCommand,
    RunnerContext,
    shipped_runner,
)
from headrace.framework.spec import NodeSpec

__all__ = ["LifePlanner", "write_to_log"]

_VISIBLE = "CUDA_VISIBLE_DEVICES"


class LifePlanner:
    """Plans each life of an algorithm process; keeps the node's runner and its GPU.

    Args:
        start: Who the node is.
        spec: What its role runs.
        port: The TCP port that the node keeps; None if its role has none.
        ahead: A process that waits for the first life; None without.
    """

    def __init__(
        self,
        start: StartLine,
        spec: NodeSpec,
        port: int | None = None,
        ahead: AheadProcess | None = None,
    ) -> None:
        self._start = start
        self._port = port
        self._spec = spec
        self._ahead = ahead
        self._runner: Runner | None = None
        self._gpu: GpuLease | None = None  # from the first life to the end of the node
        self._gpu_lock = threading.Lock()  # held while a life waits for one
        self._superseded = threading.Event()  # of the latest life; set when another is planned

    def plan(self, directive: StartProcess) -> LifePlan:
        """Return the plan of one start. Loads nothing yet: the life does, on a thread."""
        start, spec = self._start, self._spec
        ahead, self._ahead = self._ahead, None
        self._superseded.set()
        superseded = self._superseded = threading.Event()
        own = Path(start.work_dir) / _directory_name(directive)
        process_spec = ProcessSpec(
            job_name=start.job_name,
            role=start.role,
            index=start.index,
            parallelism=start.parallelism,
            attempt=directive.attempt,
            life=directive.life,
            cluster=directive.cluster,
            ports=directive.ports,
            host=start.host,
            port=self._port,
            queue_socket=start.queue_socket,
            has_checkpoints=start.has_checkpoints,
            is_restored=start.is_restored,
            restored_parallelism=start.restored_parallelism,
            states=start.states,
            mirror=start.mirror,
            work_dir=str(own if ahead is None else ahead.work_dir),
            payload_path=start.payload_path or "",
            checkpoint_dir=spec.checkpoint_dir,
            options=spec.options,
            timeouts=spec.timeouts,
        )
        context = RunnerContext(
            spec=process_spec,
            python=sys.executable,
            script=spec.script,
            args=spec.args,
            environment=spec.environment,
        )
        return LifePlan(
            spec=process_spec,
            command=lambda: self._command(context, superseded),
            environment={**inherited_environment(), **spec.environment},
            is_subreaper=True,
            sink=write_to_log,
            ahead=ahead,
            archives=None
            if (archives := environment_value(ARCHIVES)) is None
            else Path(archives),
        )

    def _command(self, context: RunnerContext, superseded: threading.Event) -> RunnerCommand:
        if self._runner is None:
            self._runner = _build_runner(self._spec.runner, self._start.payload_path)
        command = self._runner.command(context)
        own = self._gpu_variables(superseded)
        return replace(command, environment={**own, **command.environment})

    def _gpu_variables(self, superseded: threading.Event) -> dict[str, str]:
        """Return what shows the process its GPU alone. May wait for one."""
        assigned = self._start.gpus
        if _VISIBLE in self._spec.environment:
            return {}
        if self._spec.gpu == "none":
            return {_VISIBLE: "-1"} if assigned else {}
        if not assigned:
            if self._spec.gpu == "auto":
                return {}
            msg = (
                f"Role {self._start.role!r} needs a GPU, and Flink has assigned none to this "
                "TaskManager: set `external-resources: gpu` and `external-resource.gpu.amount` "
                "in its configuration, and the factory of Flink's GPU plugin"
            )
            raise ConfigError(msg)
        limit_s = self._spec.timeouts.process_start_timeout_s / 2
        with self._gpu_lock:
            if self._gpu is None:
                self._gpu = take_gpu(assigned, limit_s, wait=superseded.wait)
            if self._gpu is None:
                return {}  # a later life waits for the GPU, and nobody for this command
        return {_VISIBLE: self._gpu.index, LEASED_GPU: self._gpu.index}

    def close(self) -> None:
        """Give the GPU back, if the node has one."""
        if self._gpu is not None:
            self._gpu.close()


def _directory_name(directive: StartProcess) -> str:
    return f"process-{directive.attempt}-{directive.life}"


def _build_runner(name: str | None, payload_path: str | None) -> Runner:
    if name is not None:
        return shipped_runner(name)()
    if payload_path is None:
        msg = "The node's spec names no runner, and there is no payload with one"
        raise ProtocolError(msg)
    return load_runner(payload_path)()


def write_to_log(lines: bytes) -> None:
    """Write to stderr, which the JVM logs. Blocks while the JVM does not read."""
    view = memoryview(lines)
    while view:
        view = view[os.write(2, view) :]
