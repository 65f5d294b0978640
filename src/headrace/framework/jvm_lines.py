"""The JSON lines between the JVM and its children (docs/lifecycle.md section 1)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from headrace.errors import ProtocolError
from headrace.framework.failure import Failure
from headrace.framework.process import StateRef
from headrace.framework.status import JobStatus

__all__ = [
    "FailLine",
    "FinishLine",
    "FromJvm",
    "ListeningLine",
    "MasterAddress",
    "MasterLine",
    "MasterUnreachableLine",
    "NodeReportLine",
    "PrepareLine",
    "ProcessEndedLine",
    "ProcessStartedLine",
    "SpareLine",
    "StartLine",
    "StatusLine",
    "StopLine",
    "TlsFiles",
    "ToJvm",
    "decode_from_jvm",
]


class MasterAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the master listens.

    Attributes:
        address: "host:port".
        token: The job's secret.
        attempt: The master's attempt when this was said.
        tls_name: A name in the certificate that the master shows; None if it speaks plain text.
    """

    address: str
    token: str
    attempt: int
    tls_name: str | None = None


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """Paths of Flink's internal certificate in PEM, for the owner only.

    Attributes:
        key: File with the private key; whoever has read it removes it.
        chain: File with the certificate and those of its issuers.
        trusted: File with the certificates that a peer's must be, or be issued by.
    """

    key: str
    chain: str
    trusted: str


class StartLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="start"):
    """The first line: who the child is.

    Attributes:
        job_name: Name of the job.
        role: Name of the role; "am" for the master.
        index: Subtask index.
        parallelism: Subtasks of the role at run time.
        host: Where the child runs, as peers can reach it.
        work_dir: Directory of this child, owned by the JVM.
        spec_path: File with the `MasterSpec` or `NodeSpec`.
        payload_path: File with the payload; None if there is none.
        jvm_frozen_timeout_s: How long the JVM may be stopped before it counts as gone: Flink's
            `heartbeat.timeout`. None: for ever.
        queue_socket: Path of the memory queue's socket; nodes only, None without a queue.
        has_checkpoints: Whether the job makes Flink checkpoints at intervals; nodes only.
        is_restored: Whether the input starts behind a Flink checkpoint; nodes only.
        restored_parallelism: Processes of the role at that checkpoint; nodes only.
        states: What that checkpoint holds for the process; nodes only.
        gpus: Indices of the GPUs that Flink has assigned to this TaskManager; nodes only.
        mirror: Path of the copy of what `RoleConfig.mirror` names; nodes only.
        deployment: Number of the Flink execution of the region.
        token: The job's secret; master only.
        attempt: Attempt to begin, or to go on, with; master only.
        restarts: Group restarts so far, from the last status; master only.
        tls: How to speak with master or nodes; None: in plain text.
        master: Nodes only. Absent: a `master` line will follow. None: there is no master,
            the node decides by itself.
    """

    job_name: str
    role: str
    index: int
    parallelism: int
    host: str
    work_dir: str
    spec_path: str
    payload_path: str | None = None
    jvm_frozen_timeout_s: float | None = None
    queue_socket: str | None = None
    has_checkpoints: bool = False
    is_restored: bool = False
    restored_parallelism: int | None = None
    states: tuple[StateRef, ...] = ()
    gpus: tuple[str, ...] = ()
    mirror: str | None = None
    deployment: int = 0
    token: str | None = None
    attempt: int = 1
    restarts: int = 0
    tls: TlsFiles | None = None
    master: MasterAddress | msgspec.UnsetType | None = msgspec.UNSET


class PrepareLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="prepare"):
    """The first line of a spare node: what holds for every node of the role.

    Attributes:
        role: Name of the role.
        work_dir: Directory of this child, owned by the JVM; that of the start line to come.
        spec_path: File with the `NodeSpec`.
        payload_path: File with the payload.
        jvm_frozen_timeout_s: As in the start line.
    """

    role: str
    work_dir: str
    spec_path: str
    payload_path: str
    jvm_frozen_timeout_s: float | None = None


class MasterLine(MasterAddress, frozen=True, kw_only=True, tag_field="type", tag="master"):
    """Where the master listens now."""


class StopLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stop"):
    """End the algorithm process, then exit with 0."""

    reason: str = ""


class ListeningLine(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="listening"
):
    """The master is bound to this address."""

    address: str


class StatusLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="status"):
    """How the cluster stands."""

    status: JobStatus


class FailLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="fail"):
    """The operator must fail with this text."""

    message: str
    is_restartable: bool


class FinishLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="finish"):
    """The ML cluster has ended with success."""

    reason: str


class ProcessStartedLine(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="process_started"
):
    """The algorithm process runs; its pid is also its process group."""

    pid: int
    attempt: int
    life: int = 0


class ProcessEndedLine(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="process_ended"
):
    """The algorithm process has ended, and nothing of it is left.

    Attributes:
        attempt: Its attempt.
        life: Its number within that attempt.
        outcome: How it has ended.
        failure: How it failed, if it did.
        text: The failure as a person reads it: node, exit code or signal, traceback,
            last output.
    """

    attempt: int
    life: int = 0
    outcome: Literal["finished", "failed", "stopped"]
    failure: Failure | None = None
    text: str | None = None


class NodeReportLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="report"):
    """Latest values of `ctx.report`."""

    values: dict[str, float]


class SpareLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="spare"):
    """How a spare node stands.

    Attributes:
        state: "loading", "ready" or "ended": its algorithm process; "taken": the node has its
            start line.
        pid: The algorithm process, which is also its process group; None: there is none.
    """

    state: Literal["loading", "ready", "ended", "taken"]
    pid: int | None = None


class MasterUnreachableLine(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="master_unreachable"
):
    """The node has no contact with the master it knows; is there another one?"""


FromJvm: TypeAlias = StartLine | PrepareLine | MasterLine | StopLine
ToJvm: TypeAlias = (
    ListeningLine
    | StatusLine
    | FailLine
    | FinishLine
    | ProcessStartedLine
    | ProcessEndedLine
    | NodeReportLine
    | MasterUnreachableLine
    | SpareLine
)

_DECODER: msgspec.json.Decoder[FromJvm] = msgspec.json.Decoder(FromJvm)


def decode_from_jvm(line: bytes) -> FromJvm:
    """Decode a line of the JVM.

    Raises:
        ProtocolError: It is none. The text does not show the line: it may hold the job's token.
    """
    try:
        return _DECODER.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        msg = f"The JVM sent a line of {len(line)} bytes that the protocol does not know: {exc}"
        raise ProtocolError(msg) from exc
