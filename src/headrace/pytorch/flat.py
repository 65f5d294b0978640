"""All gradients of a model in one preallocated vector, so that one all-reduce carries a step.

Layout: ``[tallies | has-gradient flags | whole-number buffers | gradients | float buffers]``.
Each worker puts in what it has, weighted by its rows; the sum over the workers, divided by the
sum of the rows, is what one process would have computed on the union of the rows.

Nothing here communicates: `lockstep.py` sums the vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from headrace.errors import ConfigError
from headrace.pytorch.used import all_used, mark_used
from headrace.role.rounds import Tallies

__all__ = ["FlatGradients", "require_parameters"]


class FlatGradients:
    """The vector and its views.

    One thread. The views stay valid as long as the object; `store` makes them the gradients
    (``p.grad``) of the parameters, so a gradient that is kept beyond the next step must be
    cloned.

    Args:
        parameters: What the optimizer steps, in the same order on every worker.
        groups: Parameter groups of the optimizer.
        zeros: Makes the vector: elements, type, device; None: ordinary memory.
        buffers: Buffers of the model; whole-number buffers of more than one element are
            constants and left alone.

    Raises:
        ConfigError: No parameters, a complex one, or parameters on several devices.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        buffers: Iterable[torch.Tensor],
        *,
        groups: int = 1,
        zeros: Callable[[int, torch.dtype, torch.device], torch.Tensor] | None = None,
    ) -> None:
        self.parameters = tuple(parameters)
        require_parameters(self.parameters)
        device = self.parameters[0].device
        every = list(buffers)
        self._floats = [b for b in every if b.is_floating_point() and b.numel() > 0]
        self._counters = [
            b
            for b in every
            if not b.is_floating_point() and not b.is_complex() and b.numel() == 1
        ]
        wide = any(t.dtype == torch.float64 for t in (*self.parameters, *self._floats))
        self._dtype = torch.float64 if wide else torch.float32

        self.groups = groups
        self._tally_count = len(Tallies().to_list(groups))
        flags = len(self.parameters)
        counters = len(self._counters)
        gradients = sum(p.numel() for p in self.parameters)
        floats = sum(b.numel() for b in self._floats)
        total = self._tally_count + flags + counters + gradients + floats
        make = zeros or _zeros
        self.vector = make(total, self._dtype, device)
        sizes = [self._tally_count, flags, counters, gradients, floats]
        parts = torch.split(self.vector, sizes)
        self._tallies, self._flags, self._deltas, self._gradients, float_part = parts
        self._head = self.vector[: self._tally_count + flags + counters]
        self._views = _views(self._gradients, self.parameters)
        self._float_views = _views(float_part, self._floats)
        self._float_part = float_part
        self._is_direct = [p.dtype == self._dtype for p in self.parameters]
        self._known_counts = [int(buffer.item()) for buffer in self._counters]
        self._summed_flags: list[float] = []
        self._summed_deltas: list[float] = []

    @torch.no_grad()
    def load(self, tallies: Tallies, *, weight: float) -> None:
        """Put this worker's gradients and buffers into the vector, times `weight`.

        Buffers are weighted by `tallies.rows`. A parameter without a gradient counts as zeros.

        Raises:
            ConfigError: A gradient is sparse.
        """
        flags = [1.0] * len(self.parameters)
        for index, (parameter, view) in enumerate(
            zip(self.parameters, self._views, strict=True)
        ):
            gradient = parameter.grad
            if gradient is None:
                view.zero_()
                flags[index] = 0.0
            elif gradient.is_sparse:
                raise ConfigError(_sparse_text(parameter))
            elif gradient.dtype == self._dtype:
                torch.mul(gradient, weight, out=view)
            else:
                view.copy_(gradient).mul_(weight)
        self._write_head(tallies, flags)
        rows = tallies.rows
        for buffer, view in zip(self._floats, self._float_views, strict=True):
            view.copy_(buffer).mul_(rows)

    @torch.no_grad()
    def clear(self, tallies: Tallies) -> None:
        """Fill the vector for a worker that has nothing to add to this round."""
        self.vector.zero_()
        self._tallies.copy_(torch.tensor(tallies.to_list(self.groups), dtype=self._dtype))

    def tallies(self) -> Tallies:
        """Read the sums of a vector that has been summed. Waits for the device."""
        head = self._head.tolist()
        tallies, rest = head[: self._tally_count], head[self._tally_count :]
        self._summed_flags = rest[: len(self.parameters)]
        self._summed_deltas = rest[len(self.parameters) :]
        return Tallies.from_list(tallies)

    @torch.no_grad()
    def store(self, *, gradients_over: float, totals: Tallies) -> None:
        """Make the summed vector the gradients and buffers of the model.

        A parameter gets a gradient if any worker had one for it. Call `tallies` before.

        Args:
            gradients_over: What the sum of the gradients is divided by.
            totals: The summed tallies.
        """
        if gradients_over != 1.0:
            self._gradients.mul_(1.0 / gradients_over)
        each = zip(
            self.parameters, self._views, self._summed_flags, self._is_direct, strict=True
        )
        for parameter, view, flag, is_direct in each:
            if flag == 0.0:
                parameter.grad = None
            elif is_direct:
                parameter.grad = view
            else:
                parameter.grad = view.to(parameter.dtype)
        if self._floats:
            self._float_part.mul_(1.0 / totals.rows)
            for buffer, view in zip(self._floats, self._float_views, strict=True):
                buffer.copy_(view)
        for index, buffer in enumerate(self._counters):
            step = round(self._summed_deltas[index] / max(totals.active, 1))
            self._known_counts[index] += step
            buffer.fill_(self._known_counts[index])

    @property
    def counts(self) -> list[int]:
        """Whole-number buffers as of the last common step; set them with the model's state."""
        return list(self._known_counts)

    @counts.setter
    def counts(self, counts: list[int]) -> None:
        self._known_counts = list(counts)

    def take_gradients(self) -> list[torch.Tensor | None]:
        """Take the local gradients off the parameters; `put_gradients` puts them back."""
        taken: list[torch.Tensor | None] = []
        for parameter, view in zip(self.parameters, self._views, strict=True):
            gradient = parameter.grad
            shares = gradient is not None and gradient.data_ptr() == view.data_ptr()
            if gradient is not None and shares:
                was_used = all_used([gradient])
                gradient = gradient.clone()
                if was_used:
                    mark_used([gradient])
            taken.append(gradient)
            parameter.grad = None
        return taken

    def put_gradients(self, gradients: Sequence[torch.Tensor | None]) -> None:
        """Put back what `take_gradients` took."""
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def _write_head(self, tallies: Tallies, flags: list[float]) -> None:
        deltas = [
            float(int(buffer.item()) - known)
            for buffer, known in zip(self._counters, self._known_counts, strict=True)
        ]
        head = [*tallies.to_list(self.groups), *flags, *deltas]
        self._head.copy_(torch.tensor(head, dtype=self._dtype))


def _zeros(elements: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.zeros(elements, dtype=dtype, device=device)


def _views(part: torch.Tensor, like: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    pieces = torch.split(part, [each.numel() for each in like])
    return [piece.view(each.shape) for piece, each in zip(pieces, like, strict=True)]


def require_parameters(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Refuse parameters that one vector cannot hold.

    Raises:
        ConfigError: There are none, a complex one, or they are on several devices.
    """
    if not parameters:
        msg = "ctx.data_parallel: the optimizer has no parameters"
        raise ConfigError(msg)
    if any(p.is_complex() for p in parameters):
        msg = "ctx.data_parallel: complex parameters are not supported; use two real ones"
        raise ConfigError(msg)
    devices = sorted({str(p.device) for p in parameters})
    if len(devices) > 1:
        msg = f"ctx.data_parallel: parameters are on {devices}; put the model on one device"
        raise ConfigError(msg)


def _sparse_text(parameter: torch.nn.Parameter) -> str:
    return (
        f"ctx.data_parallel: a parameter of shape {tuple(parameter.shape)} has a sparse "
        "gradient; use a dense one (for nn.Embedding: sparse=False)"
    )
