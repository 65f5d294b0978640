"""What torch keeps for the life of a process, once, before the tests look for leaks."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def optimizers_are_imported() -> None:
    """Import what the first optimizer imports: meanwhile it would keep a process group."""
    torch.set_num_threads(1)
    torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
