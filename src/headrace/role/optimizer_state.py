"""Where the state of a torch optimizer differs from the optimizer that is to take it.

An optimizer that has made no step has no state, so its own `state_dict` says nothing of what
it expects: that follows from its parameters. Torch compares the numbers of parameters, and
nothing else: what has another shape fails at the first step, or is broadcast.

Torch itself is not imported: an optimizer is known by what it has.

Source: torch/optim/optimizer.py, ``state_dict`` and ``load_state_dict``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = [
    "is_optimizer",
    "lost_settings",
    "misshapen",
    "needed_settings",
    "optimizer_differences",
]

_NO_SETTINGS = {"params", "param_names"}
# Of torch's own optimizers; others may keep what has any shape under these names.
_LIKE_PARAMETER = {
    "acc_delta",
    "ax",
    "exp_avg",
    "exp_avg_sq",
    "exp_inf",
    "grad_avg",
    "max_exp_avg_sq",
    "momentum_buffer",
    "prev",
    "square_avg",
    "step_size",
    "sum",
    "variance",
}
_OF_ALL_PARAMETERS = {"d", "prev_flat_grad"}  # of LBFGS, which keeps one vector for all
_Group = Mapping[str, Any]


def is_optimizer(each: object, kept: object) -> bool:
    """Whether `each` is a torch optimizer, and `kept` what one's `state_dict` returned."""
    return (
        _is_groups(getattr(each, "param_groups", None))
        and isinstance(kept, Mapping)
        and isinstance(kept.get("state"), Mapping)
        and _is_groups(kept.get("param_groups"))
    )


def optimizer_differences(optimizer: Any, kept: Mapping[str, Any]) -> list[str]:
    """Return a line for each thing in which `kept` does not fit: groups, settings, shapes."""
    own, others = optimizer.param_groups, kept["param_groups"]
    lines = [
        f"missing in the checkpoint: param_groups[{index}], {_size(own[index])}"
        for index in range(len(others), len(own))
    ]
    lines += [
        f"unexpected in the checkpoint: param_groups[{index}], {_size(others[index])}"
        for index in range(len(own), len(others))
    ]
    for index, (here, there) in enumerate(zip(own, others, strict=False)):
        place = f"param_groups[{index}]"
        if len(here["params"]) != len(there["params"]):
            lines.append(f"{place}: {_size(there)} in the checkpoint, {_size(here)} here")
        settings = [each.keys() - _NO_SETTINGS for each in (here, there)]
        lines += [
            f"missing in the checkpoint: {place}.{name}"
            for name in sorted(settings[0] - settings[1])
        ]
        lines += [
            f"unexpected in the checkpoint: {place}.{name}"
            for name in sorted(settings[1] - settings[0])
        ]
    return lines + misshapen(optimizer, kept)


def misshapen(optimizer: Any, kept: Mapping[str, Any]) -> list[str]:
    """Return a line for each entry of `kept` that cannot be one of its parameter's.

    Of torch's own optimizers only: others may keep what they like.
    """
    if not _is_torchs_own(optimizer):
        return []
    every = [each for group in optimizer.param_groups for each in group["params"]]
    whole = (sum(each.numel() * (2 if each.is_complex() else 1) for each in every),)
    lines = []
    for number, parameter in _paired(optimizer.param_groups, kept["param_groups"]):
        for name, value in kept["state"].get(number, {}).items():
            expected = _expected(name, tuple(parameter.shape), whole)
            found = tuple(getattr(value, "shape", None) or ())
            if expected is not None and value is not None and found != expected:
                lines.append(
                    f"state.{number}.{name}: shape {found} in the checkpoint, {expected} here"
                )
    return lines


def needed_settings(optimizer: Any) -> list[set[str]]:
    """Return for each group the names of the settings that the optimizer reads there."""
    if not _is_torchs_own(optimizer):
        return []
    known = getattr(optimizer, "defaults", {}).keys()
    return [known & group.keys() for group in optimizer.param_groups]


def lost_settings(optimizer: Any, needed: list[set[str]]) -> list[str]:
    """Return those of `needed_settings` that are gone now that it has taken a state.

    Each takes the settings of the checkpoint in place of its own: those of one of another kind
    lack some. What a newer torch has in addition, it puts in by itself. Of torch's own only.
    """
    groups = optimizer.param_groups
    return [
        name
        for names, group in zip(needed, groups, strict=False)
        for name in sorted(names - group.keys())
    ]


def _paired(own: Sequence[_Group], others: Sequence[_Group]) -> Iterator[tuple[Any, Any]]:
    """Return number in the checkpoint and parameter, as torch finds them: by their places."""
    for here, there in zip(own, others, strict=False):
        yield from zip(there["params"], here["params"], strict=False)


def _expected(
    name: str, shape: tuple[int, ...], whole: tuple[int, ...]
) -> tuple[int, ...] | None:
    if name in _LIKE_PARAMETER:
        return shape
    if name in _OF_ALL_PARAMETERS:
        return whole
    if name in ("row_var", "col_var"):  # of Adafactor: means over the columns, over the rows
        if len(shape) < 2:
            return shape
        return (*shape[:-1], 1) if name == "row_var" else (*shape[:-2], 1, shape[-1])
    return None


def _is_torchs_own(optimizer: object) -> bool:
    """Whether its steps are made by code of torch's, also where it is a user's subclass."""
    step = getattr(type(optimizer), "step", None)
    return str(getattr(step, "__module__", None)).startswith("torch.optim.")


def _is_groups(groups: object) -> bool:
    return isinstance(groups, list) and all(
        isinstance(each, Mapping) and isinstance(each.get("params"), list) for each in groups
    )


def _size(group: _Group) -> str:
    count = len(group["params"])
    return f"{count} parameter{'' if count == 1 else 's'}"
