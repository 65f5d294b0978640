"""Runs every benchmark after the other: `python -m benchmarks`, or `make bench`."""

from __future__ import annotations

import subprocess
import sys

_SCRIPTS = (
    "benchmarks.hop",
    "benchmarks.columns",
    "benchmarks.round_trip",
    "benchmarks.scoring",
    "benchmarks.scoring_latency",
    "benchmarks.sql_predict",
    "benchmarks.fed_training",
    "benchmarks.data_parallel",
    "benchmarks.tf_training",
    "benchmarks.tf_dataset",
    "benchmarks.tf_start",
    "benchmarks.tfrecord",
    "benchmarks.epochs",
    "benchmarks.checkpoint_pause",
    "benchmarks.checkpoint_throughput",
    "benchmarks.exports",
    "benchmarks.lifecycle",
    "benchmarks.recovery",
    "benchmarks.rescale",
    "benchmarks.goodput",
    "benchmarks.many_nodes",
    "benchmarks.memory",
    "benchmarks.summary",
)


def main() -> int:
    """Run each script in a process of its own; return 1 if one failed."""
    codes = [
        subprocess.run([sys.executable, "-m", script], check=False).returncode
        for script in _SCRIPTS
    ]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main())
