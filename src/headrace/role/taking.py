"""An object and the state that it is to take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.errors import ConfigError, PlanError

__all__ = ["load_state", "require_stateful"]


def require_stateful(name: str, each: object) -> None:
    """Refuse an object that has no state to give or to take.

    Raises:
        ConfigError: It lacks a method.
    """
    missing = [
        method
        for method in ("state_dict", "load_state_dict")
        if not callable(getattr(each, method, None))
    ]
    if missing:
        msg = (
            f"ctx.checkpointed({name}=...): a {type(each).__name__} has no "
            f"{' and no '.join(missing)}. Name models, optimizers and schedulers there, and "
            "put values of your own into the dictionary ctx.state"
        )
        raise ConfigError(msg)


def load_state(name: str, each: Any, kept: object) -> None:
    """Give an object its state back.

    Raises:
        PlanError: It does not take it; the text lists what differs.
    """
    try:
        each.load_state_dict(kept)
    except Exception as exc:
        raise _not_taken(name, each, kept, exc) from exc


def _not_taken(name: str, each: Any, kept: object, cause: Exception) -> PlanError:
    try:
        found = _differences(_flat(each.state_dict()), _flat(kept))
    except Exception:  # noqa: BLE001 - the first error is the one to tell
        found = []
    listed = "".join(f"\n  {line}" for line in found)
    return PlanError(
        f"ctx.checkpointed: {name!r} (a {type(each).__name__}) does not take its state from "
        f"the restored checkpoint: {type(cause).__name__}: {cause}{listed}"
    )


def _differences(own: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    lines = [f"missing in the checkpoint: {key}" for key in own if key not in kept]
    lines += [f"unexpected in the checkpoint: {key}" for key in kept if key not in own]
    for key in own.keys() & kept.keys():
        shapes = [getattr(value, "shape", None) for value in (own[key], kept[key])]
        if shapes[0] != shapes[1]:
            lines.append(f"{key}: shape {shapes[1]} in the checkpoint, {shapes[0]} here")
    return lines


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by their paths."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, part in value.items():
        leaves.update(_flat(part, f"{prefix}.{key}" if prefix else str(key)))
    return leaves
