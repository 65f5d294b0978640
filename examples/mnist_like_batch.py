"""Batch mode: two PyTorch workers inside a Flink job, each reading its own files.

The files hold scikit-learn's handwritten digits (1,797 images of 8 x 8). Run it with
`python -m examples.mnist_like_batch`; it ends with code 0 if more than 95 % of the held-out
images are read right.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import headrace.pytorch
from headrace.pytorch import TorchContext

__all__ = ["main", "train", "write_files"]

_FILES = 8
_HELD_OUT_ROWS = 360
_LEAST_ACCURACY = 0.95


def write_files(directory: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Write the training images as several files into `directory`.

    Returns:
        Images and labels that are held out.
    """
    directory.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    images = (digits.data / 16).astype(np.float32)
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(labels))
    held_out, training = order[:_HELD_OUT_ROWS], order[_HELD_OUT_ROWS:]
    for number, part in enumerate(np.array_split(training, _FILES)):
        np.savez(directory / f"part-{number}.npz", images=images[part], labels=labels[part])
    return torch.from_numpy(images[held_out]), torch.from_numpy(labels[held_out])


def build_model() -> nn.Module:
    """Return the network, untrained."""
    return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def train(ctx: TorchContext, *, directory: Path, epochs: int) -> None:
    """Train on every `ctx.world_size`-th file; rank 0 saves the model.

    Workers need not have equally many rows: a step is that of the union of their rows, and who
    is through joins the steps of the others.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    files = sorted(directory.glob("part-*.npz"))[ctx.rank :: ctx.world_size]
    parts = [np.load(file) for file in files]
    images = torch.from_numpy(np.concatenate([part["images"] for part in parts]))
    labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts]))
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    ctx.data_parallel(model, optimizer)
    for epoch in range(epochs):
        for rows in torch.randperm(len(labels)).split(32):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            ctx.step_rows(len(rows))
            optimizer.step()
        ctx.report(epoch=epoch, loss=loss, rows=len(labels))
    ctx.join()
    ctx.save(model)


def main(argv: list[str] | None = None) -> int:
    """Write the files, train on them in a Flink job, and read the held-out digits.

    Returns:
        Exit code: 0 if the model is good enough.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.mnist_like_batch")
    parser.add_argument("--workers", type=int, default=2, help="PyTorch workers (default: 2)")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the files")
    parser.add_argument("--out", type=Path, default=Path("out/mnist_like_batch"))
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()
    images, labels = write_files(out / "digits")
    plan = headrace.pytorch.train(
        None,
        functools.partial(train, directory=out / "digits", epochs=options.epochs),
        workers=options.workers,
        output_dir=out,
        name="digits",
    )
    result = plan.submit().wait()
    model = build_model()
    model.load_state_dict(torch.load(out / "model.pt"))
    accuracy = (model(images).argmax(dim=1) == labels).double().mean().item()
    rows = {name: node.report["rows"] for name, node in sorted(result.status.nodes.items())}
    print(f"images trained on, by worker: {rows}")
    print(f"held-out accuracy: {accuracy:.1%} of {len(labels)} digits; see {out}")
    return 0 if accuracy > _LEAST_ACCURACY else 1


if __name__ == "__main__":
    sys.exit(main())
