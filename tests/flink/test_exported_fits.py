"""Estimators on a stream: a model for each completed checkpoint, and one at the stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pyflink.table import StreamTableEnvironment, Table

from headrace.errors import PlanError
from headrace.tensorflow import KerasEstimator

from .conftest import MakeEnvironment
from .exported import ALL_KEPT, CHECKPOINTS, add_endless_numbers, ids_in, objects_in
from .tensorflow_jobs import until_job
from .test_estimators import estimator, problem
from .test_kept_state import NARROW, SMALL, in_dir

cloudpickle.register_pickle_by_value(sys.modules[__name__])

HELD_OUT = 40
LIMIT_S = 100.0


def held_out_rows(t_env: StreamTableEnvironment) -> Table:
    """Rows that end, with the columns of `problem`."""
    values = ", ".join(f"({n})" for n in range(HELD_OUT))
    t_env.execute_sql(f"CREATE TEMPORARY VIEW others AS SELECT * FROM (VALUES {values}) v(id)")
    return problem(t_env, source="others")


@pytest.mark.timeout(200)
def test_a_fit_on_a_stream_exports_the_model_of_each_checkpoint_until_it_is_stopped(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    checkpoints, served = tmp_path / "cp", tmp_path / "served"
    t_env = make_t_env(**CHECKPOINTS, **ALL_KEPT, **NARROW, **in_dir(checkpoints))
    add_endless_numbers(t_env)
    chosen = estimator(epochs=1, batch_rows=16, exchange=SMALL)
    job = chosen.plan_fit(
        problem(t_env),
        held_out_rows(t_env),
        model_dir=tmp_path / "model",
        export_to=served,
        keep_exports=1_000,
    ).submit()
    try:
        until_job(job.handle, lambda: len(ids_in(served)) > 4, "versions", LIMIT_S)
        versions = []
        for checkpoint_id in ids_in(served):
            path = served / f"checkpoint-{checkpoint_id}.pt"
            version = torch.load(path, weights_only=True)
            held = objects_in(checkpoints, checkpoint_id)["model"]
            assert version.keys() == held.keys()
            assert all(torch.equal(value, held[name]) for name, value in version.items())
            versions.append(version["layer.weight"])
        assert not torch.equal(versions[0], versions[-1])
    except BaseException:
        job.handle.cancel()
        raise
    job.handle.stop(tmp_path / "saved", timeout_s=LIMIT_S, show_progress=False)
    fitted = job.wait(timeout_s=LIMIT_S, show_progress=False)

    (rows,) = fitted.history["rows"]
    assert rows == job.handle.status().nodes["worker-0"].rows_in - HELD_OUT
    assert list(fitted.history["val_rows"]) == [HELD_OUT]
    assert not torch.equal(fitted.module().state_dict()["layer.weight"], versions[0])


def keras_estimator(**changes: Any) -> KerasEstimator:
    parameters = {"features": ["a", "b"], "label": "late", **changes}
    return KerasEstimator(print, "mse", "adam", **parameters)


@pytest.mark.parametrize("make", [estimator, keras_estimator], ids=["PyTorch", "Keras"])
def test_what_a_fit_cannot_export_is_told_when_it_is_planned(
    t_env: StreamTableEnvironment, tmp_path: Path, make: Any
) -> None:
    add_endless_numbers(t_env)
    endless, chosen = problem(t_env), make(epochs=1)
    with pytest.raises(PlanError, match=r"stream, with export_to= and epochs=1, or write a tr"):
        chosen.plan_fit(endless)
    with pytest.raises(PlanError, match=r"export_to='s3://models/delay' must be a directory"):
        chosen.plan_fit(endless, export_to="s3://models/delay")
    with pytest.raises(PlanError, match=r"epochs=3 needs an input that ends"):
        make(epochs=3).plan_fit(endless, export_to=tmp_path / "served")
    with pytest.raises(PlanError, match=r"source of validation is unbounded"):
        chosen.plan_fit(endless, endless, export_to=tmp_path / "served")
    with pytest.raises(ValueError, match=r"keep_exports=0"):
        chosen.plan_fit(endless, export_to=tmp_path / "served", keep_exports=0)
    plan = chosen.plan_fit(endless, export_to=tmp_path / "served")
    with pytest.raises(PlanError, match=r"export_to= .*set `execution.checkpointing.interval`"):
        plan.submit()
    assert not (tmp_path / "served").exists()
