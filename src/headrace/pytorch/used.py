"""Tells gradients that a step was made of from those of the next step."""

from __future__ import annotations

from collections.abc import Iterable

import torch

__all__ = ["all_used", "mark_used"]

_MARK = "_headrace_used_version"


def mark_used(gradients: Iterable[torch.Tensor | None]) -> None:
    """Note that a step was made of `gradients`, as they are now.

    They stay in ``parameter.grad`` until ``zero_grad()``, which a loop that skips a batch may
    not call before it asks for the next one.
    """
    for gradient in gradients:
        if gradient is not None:
            setattr(gradient, _MARK, gradient._version)  # noqa: SLF001 - as autograd tells it


def all_used(gradients: Iterable[torch.Tensor | None]) -> bool:
    """Return whether nothing was added to any gradient since the step it was used in.

    What ``backward()`` adds, it adds in place, which counts as a version of the tensor, or it
    makes another tensor.
    """
    return all(
        gradient is None or getattr(gradient, _MARK, None) == gradient._version  # noqa: SLF001
        for gradient in gradients
    )
