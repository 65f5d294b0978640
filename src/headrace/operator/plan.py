"""From settings to what the operators carry: JSON for their Python children, and payloads.

Nothing here talks to Flink; everything is checked before a job is submitted.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from headrace.config import AMConfig, MirrorConfig, RoleConfig, TimeoutConfig
from headrace.errors import PlanError
from headrace.framework import MasterSpec, NodeSpec, dump_payload
from headrace.framework.machine import Machine, shipped_machine, validate
from headrace.framework.runner import EntryKind, Runner, shipped_runner
from headrace.role import RoleEntry

__all__ = [
    "am_payload",
    "am_spec",
    "checkpoint_dir_of_job",
    "cluster_document",
    "role_document",
    "role_payload",
]

_TAKES: dict[EntryKind, str] = {
    "function": "a function",
    "script": "the path of a script",
    "none": "no entry",
}


def cluster_document(
    name: str, *, uid_prefix: str, timeouts: TimeoutConfig, python_path: list[str], **am: Any
) -> str:
    """Return the JSON that `ClusterBuilder` reads about a cluster, or about a role without one.

    Args:
        name: Name of the cluster.
        uid_prefix: Stem of its operators' uids.
        timeouts: Limits on every wait.
        python_path: Entries appended to the children's PYTHONPATH.
        am: What the am operator needs beyond that.
    """
    return json.dumps(
        {
            "name": name,
            "uid_prefix": uid_prefix,
            "timeouts": asdict(timeouts),
            "python_path": python_path,
            **am,
        }
    )


def role_document(
    name: str, config: RoleConfig, timeouts: TimeoutConfig, checkpoint_dir: Path | None
) -> str:
    """Return the JSON that `ClusterBuilder` reads about a role.

    Raises:
        PlanError: An option is no JSON value.
    """
    return json.dumps(
        {
            "role": name,
            "parallelism": config.parallelism,
            "least_parallelism": config.min_parallelism or config.parallelism,
            "spec": _node_spec(config, timeouts, checkpoint_dir),
            "exchange": asdict(config.exchange),
            "mirror": _mirror_document(config.mirror),
            "spare_after_ms": _spare_after_ms(config),
        }
    )


def _mirror_document(mirror: MirrorConfig | None) -> dict[str, Any] | None:
    if mirror is None:
        return None
    every_s = mirror.every_s
    return {"uri": mirror.uri, "every_ms": 0 if every_s is None else round(every_s * 1000)}


def _spare_after_ms(config: RoleConfig) -> int | None:
    """A spare knows no mirror, and has nothing to load for another runner."""
    if config.spare_after_s is None or config.mirror is not None:
        return None
    return round(config.spare_after_s * 1000) if config.runner == "function" else None


def am_spec(job_name: str, am: AMConfig) -> dict[str, Any]:
    """Return the master's spec as JSON values; the am operator adds the planned roles."""
    machine = am.state_machine
    spec = MasterSpec(
        job_name=job_name,
        machine=machine if isinstance(machine, str) else None,
        roles={},
        max_restarts=am.max_restarts,
        timeouts=am.timeouts,
    )
    return _json_values(spec)


def am_payload(am: AMConfig) -> bytes:
    """Return the master's payload: the user's own state machine, if there is one.

    Raises:
        PlanError: The machine is unknown, unsound, of a wrong type, or does not pickle.
    """
    machine = am.state_machine
    if isinstance(machine, str):
        shipped_machine(machine)
        return dump_payload()
    if not isinstance(machine, Machine):
        msg = (
            f"am.state_machine={machine!r} must be the name of a shipped machine or a "
            "headrace.framework.machine.Machine"
        )
        raise PlanError(msg)
    validate(machine)
    return dump_payload(machine=machine)


def role_payload(name: str, config: RoleConfig) -> bytes:
    """Return a role's payload: its entry function and, if it has one, its own runner class.

    Raises:
        PlanError: The runner is unknown, the entry or the options do not fit it, or a part does
            not pickle; names the role.
    """
    try:
        runner = _runner_class(config.runner)
        _require_fit(config, runner)
        entry: object = None
        if config.entry is not None and not isinstance(config.entry, str):
            is_wrapped = isinstance(config.entry, RoleEntry)
            entry = config.entry if is_wrapped else RoleEntry(config.entry)
        is_shipped = isinstance(config.runner, str)
        return dump_payload(entry=entry, runner=None if is_shipped else runner)
    except PlanError as exc:
        msg = f"role {name!r}: {exc}"
        raise PlanError(msg) from exc


def checkpoint_dir_of_job(
    job_name: str, given: str | Path | None, *, is_embedded: bool
) -> Path | None:
    """Return the directory of one job's checkpoints; whoever writes there first creates it.

    Args:
        job_name: Part of the directory's name.
        given: The user's directory for all jobs; a relative one is taken from here. None: the
            temp directory on the embedded cluster, nowhere on another.
        is_embedded: Whether the processes run on this machine.

    Returns:
        A directory that no other submission has: a job takes up its own checkpoints only.
    """
    if given is None and not is_embedded:
        return None
    folder = Path(tempfile.gettempdir() if given is None else given).absolute()
    return folder / f"headrace-{job_name}-{uuid.uuid4().hex[:12]}"


def _runner_class(runner: object) -> type[Runner]:
    if isinstance(runner, str):
        return shipped_runner(runner)
    if isinstance(runner, type) and issubclass(runner, Runner):
        return runner
    msg = (
        f"runner={runner!r} must be the name of a shipped runner or a subclass of "
        "headrace.framework.Runner"
    )
    raise PlanError(msg)


def _require_fit(config: RoleConfig, runner: type[Runner]) -> None:
    kind = _kind_of(config.entry)
    if runner.entry_kind not in (kind, "any"):
        msg = (
            f"entry={config.entry!r} does not fit runner={config.runner!r}, which takes "
            f"{_TAKES[runner.entry_kind]}; a function needs runner='function', a path needs "
            "runner='script'"
        )
        raise PlanError(msg)
    missing = [key for key in runner.needed_options if key not in config.options]
    if missing:
        msg = f"runner={config.runner!r} needs {missing} in options={dict(config.options)!r}"
        raise PlanError(msg)


def _kind_of(entry: object) -> EntryKind:
    if entry is None:
        return "none"
    return "script" if isinstance(entry, str) else "function"


def _node_spec(
    config: RoleConfig, timeouts: TimeoutConfig, checkpoint_dir: Path | None
) -> dict[str, Any]:
    runner = _runner_class(config.runner)
    spec = NodeSpec(
        runner=config.runner if isinstance(config.runner, str) else None,
        script=config.entry if isinstance(config.entry, str) else None,
        args=config.args,
        environment=dict(config.environment),
        gpu=config.gpu,
        has_port=config.has_port or runner.needs_port,
        url_scheme=runner.url_scheme,
        checkpoint_dir=None if checkpoint_dir is None else str(checkpoint_dir),
        options=dict(config.options),
        timeouts=timeouts,
    )
    try:
        return _json_values(spec)
    except TypeError as exc:
        msg = f"role.options={dict(config.options)!r} must hold JSON values only: {exc}"
        raise PlanError(msg) from exc


def _json_values(spec: MasterSpec | NodeSpec) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(spec))
    return values
