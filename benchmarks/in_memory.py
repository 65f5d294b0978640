"""Training on tensors in memory: what `benchmarks.fed_training` starts with torchrun.

``torchrun --nproc-per-node=2 -m benchmarks.in_memory ROWS EPOCHS WARM_UP_STEPS FILE``. Each
process holds its part of the rows; rank 0 writes the mean steps into FILE.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from benchmarks.mlp import BATCH_ROWS, CLASSES, WIDTH, StepClock, build_model, train_step


def main() -> None:
    """Train and write the mean steps."""
    rows, epochs, warm_up_steps = (int(each) for each in sys.argv[1:4])
    dist.init_process_group("gloo")
    rows //= dist.get_world_size()
    x, y = torch.rand(rows, WIDTH), torch.randint(0, CLASSES, (rows,))
    model = nn.parallel.DistributedDataParallel(build_model())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    clock = StepClock(warm_up_steps)
    for epoch in range(epochs):
        for start in range(0, rows, BATCH_ROWS):
            end = start + BATCH_ROWS
            train_step(model, optimizer, x[start:end], y[start:end])
            clock.note(epoch)
    if dist.get_rank() == 0:
        Path(sys.argv[4]).write_text(json.dumps(clock.step_us()))
    dist.barrier()
    os._exit(0)  # torch's threads sometimes abort a process that takes the group down (2.13)


if __name__ == "__main__":
    main()
