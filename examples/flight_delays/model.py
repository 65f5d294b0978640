"""The network: embeddings for the categories, two hidden layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["DelayModel"]

HOUR_MIN = 60.0


class DelayModel(nn.Module):
    """Maps a flight's numbers and codes to how late it arrives, in minutes.

    Args:
        numbers: Numeric features.
        categories: Distinct values of each code.
    """

    def __init__(self, numbers: int, categories: Sequence[int]) -> None:
        super().__init__()
        widths = [min(8, (count + 1) // 2) for count in categories]
        self.embeddings = nn.ModuleList(
            nn.Embedding(count, width) for count, width in zip(categories, widths, strict=True)
        )
        self.layers = nn.Sequential(
            nn.Linear(numbers + sum(widths), 128),
            nn.ReLU(),
            nn.Linear(128, 128),
            nn.ReLU(),
            nn.Linear(128, 1),
        )

    def forward(self, numbers: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return minutes, shape (rows,), for `numbers` (rows, n) and `codes` (rows, k)."""
        embedded = [embed(codes[:, i]) for i, embed in enumerate(self.embeddings)]
        hours: torch.Tensor = self.layers(torch.cat([numbers, *embedded], dim=1))
        return HOUR_MIN * hours.squeeze(1)  # the layers work with values of about 1
