"""Gives an object the state that a checkpoint holds for it, and says what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.errors import ConfigError, HeadraceError, PlanError
from headrace.role.fullness import says_full
from headrace.role.optimizer_state import (
    is_optimizer,
    lost_settings,
    misshapen,
    needed_settings,
    optimizer_differences,
)

__all__ = ["require_stateful", "take_state"]


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


def take_state(name: str, each: Any, kept: Any) -> None:
    """Load `kept` into an object.

    An optimizer of torch's that would take what does not fit its parameters is not given it.

    Args:
        name: Of the object, as `ctx.checkpointed` was told.
        each: Has `state_dict` and `load_state_dict`.
        kept: What its `state_dict` returned.

    Raises:
        PlanError: It does not take it; the text has its own error, and lists what is missing,
            unexpected and of another shape.
        Exception: What it raised, if that says that memory or a disk is full.
    """
    listed: list[str] | None = None
    try:
        if is_optimizer(each, kept):
            listed = optimizer_differences(each, kept)  # it may have changed behind the call
            _load_optimizer(each, kept)
        else:
            each.load_state_dict(kept)
    except HeadraceError:
        raise
    except Exception as exc:
        if says_full(exc):
            raise  # no matter of what it holds: a restart may mend it
        if listed is None:
            try:
                listed = _differences(_flat(each.state_dict()), _flat(kept))
            except Exception:  # noqa: BLE001 - the first error is the one to tell
                listed = []
        lines = "".join(f"\n  {line}" for line in listed)
        msg = (
            f"ctx.checkpointed: {name!r} (a {type(each).__name__}) does not take its state "
            f"from the restored checkpoint: {type(exc).__name__}: {exc}{lines}"
        )
        raise PlanError(msg) from exc


def _load_optimizer(optimizer: Any, kept: Any) -> None:
    if misshapen(optimizer, kept):
        msg = "its entries are not of the shapes of the parameters"
        raise ValueError(msg)
    needed = needed_settings(optimizer)
    optimizer.load_state_dict(kept)
    if lost_settings(optimizer, needed):
        msg = "it is the state of another kind of optimizer"
        raise ValueError(msg)


def _differences(own: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    lines = [
        f"missing in the checkpoint: {key}{_shape_of(value)}"
        for key, value in own.items()
        if key not in kept
    ]
    lines += [
        f"unexpected in the checkpoint: {key}{_shape_of(value)}"
        for key, value in kept.items()
        if key not in own
    ]
    for key in own:
        if key in kept:
            shapes = [_shape(value) for value in (own[key], kept[key])]
            if shapes[0] != shapes[1]:
                lines.append(f"{key}: shape {shapes[1]} in the checkpoint, {shapes[0]} here")
    return lines


def _shape_of(value: object) -> str:
    shape = _shape(value)
    return "" if shape is None else f", shape {shape}"


def _shape(value: object) -> tuple[int, ...] | None:
    shape = getattr(value, "shape", None)
    return None if shape is None else tuple(shape)


def _flat(value: object, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by their paths."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, part in value.items():
        leaves.update(_flat(part, f"{prefix}.{key}" if prefix else str(key)))
    return leaves
