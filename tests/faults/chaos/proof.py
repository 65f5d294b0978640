"""What must hold of a job that was killed at random: it ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headrace.operator import JobHandle
from tests.faults.chaos.jobs import Case, Places, checksum_of
from tests.flink.training_jobs import columns_of, ids_by_step, read_rows, replay

__all__ = ["require_exact", "require_exact_results"]

_TOLERANCE = 1e-9
_LIMIT_S = 300.0


def require_exact(case: Case, job: JobHandle, places: Places) -> int:
    """Wait for the end, and hold rows, counts, checksums, steps and model to what they must be.

    Returns:
        How many steps the model was trained for.
    """
    result = job.wait(timeout_s=_LIMIT_S, show_progress=False)
    reports = {name: node.report for name, node in result.status.nodes.items()}
    return require_exact_results(case, reports, places)


def require_exact_results(
    case: Case, reports: Mapping[str, Mapping[str, float]], places: Places
) -> int:
    """As `require_exact`, of a job that has ended; `reports`: of each node, by its name."""
    rows = read_rows(places.out)
    assert sorted(row["id"] for row in rows) == list(range(case.rows))
    for worker in range(case.workers):
        report = reports[f"worker-{worker}"]
        own = sorted(
            (row["count"], row["id"], row["checksum"])
            for row in rows
            if row["worker"] == worker
        )
        assert own == _expected(case, worker)
        assert report["rows"] == len(own), (worker, report)
    steps = {row["step"] for row in rows}
    assert steps == set(range(1, len(steps) + 1))
    saved, alone = _weights(case, places, ids_by_step(rows))
    assert saved.keys() == alone.keys()
    for name, value in alone.items():
        if case.workers == 1:
            np.testing.assert_array_equal(saved[name], value, name)
        else:
            np.testing.assert_allclose(saved[name], value, _TOLERANCE, _TOLERANCE, err_msg=name)
    return len(steps)


def _expected(case: Case, worker: int) -> list[tuple[int, int, int]]:
    """Count, row and checksum of each row of a worker."""
    found: list[tuple[int, int, int]] = []
    checksum = 0
    for number in range(worker, case.rows, case.workers):
        checksum = checksum_of(checksum, number)
        found.append((len(found) + 1, number, checksum))
    return found


def _weights(
    case: Case, places: Places, by_step: list[list[int]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was saved, and what one process gets that makes the same steps."""
    if case.framework == "pytorch":
        torch.set_num_threads(1)
        model, _ = replay(by_step)
        saved = torch.load(places.folder / "model.pt", weights_only=True)
        return saved, {name: value.numpy() for name, value in model.state_dict().items()}
    import keras
    import tensorflow as tf

    from tests.flink.tensorflow_jobs import build_model, step_function

    alone, optimizer = build_model(), keras.optimizers.Adam(0.02)
    step = step_function(tf, alone, optimizer)
    for ids in by_step:
        step(*(each.numpy() for each in columns_of(ids)))
    loaded = keras.models.load_model(places.folder / "model.keras")
    return _numbered(loaded), _numbered(alone)


def _numbered(model: Any) -> dict[str, Any]:
    return {str(number): value for number, value in enumerate(model.get_weights())}
