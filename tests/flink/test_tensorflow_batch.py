"""Programs that were written for TensorFlow's own strategies run as batch jobs of Flink."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from headrace.errors import ConfigError, PlanError
from headrace.framework.status import JobStatus, NodeStatus
from headrace.operator import JobHandle

from .conftest import MakeEnvironment
from .tensorflow_jobs import held, hold, notes_of, until_job
from .tensorflow_scripts import (
    PIXELS,
    WEIGHTS,
    coordinator_script,
    mirrored_script,
    write_samples,
)
from .training_jobs import add_numbers

cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.timeout(300)  # two jobs at once, six processes that import TensorFlow
def test_scripts_of_both_strategies_run_unchanged_and_two_jobs_at_once_keep_apart(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    places = {name: tmp_path / name for name in ("coordinator", "mirrored")}
    for place in places.values():
        place.mkdir()
        write_samples(place)
    make_t_env(1)
    script = coordinator_script(str(places["coordinator"]))
    first = headrace.tensorflow.train(
        None, script, workers=2, ps=1, chief=True, max_restarts=0, name="one"
    ).submit()
    script = mirrored_script(str(places["mirrored"]))
    second = headrace.tensorflow.train(
        None, script, workers=2, max_restarts=0, name="one"
    ).submit()
    by_coordinator = first.wait(timeout_s=200).status
    mirrored = second.wait(timeout_s=200).status

    assert states(by_coordinator) == {
        "chief-0": "finished",
        "worker-0": "stopped",
        "worker-1": "stopped",
        "ps-0": "stopped",
    }
    require_trained(by_coordinator.nodes["chief-0"].report)
    assert by_coordinator.nodes["chief-0"].report["count"] == 200
    require_one_cluster(
        places["coordinator"], by_coordinator, ["chief-0", "worker-0", "worker-1"]
    )

    assert states(mirrored) == {"worker-0": "finished", "worker-1": "stopped"}
    for index in range(2):
        report = mirrored.nodes[f"worker-{index}"].report
        require_trained(report)
        assert report["pixels"] == PIXELS**2 * 10 * (index + 1)
    require_one_cluster(places["mirrored"], mirrored, ["worker-0", "worker-1"])


def states(status: JobStatus) -> dict[str, str]:
    assert status.state == "FINISHED"
    assert status.restarts == 0
    return {name: node.state for name, node in status.nodes.items()}


def require_trained(report: dict[str, float]) -> None:
    assert report["w0"] == pytest.approx(WEIGHTS[0], abs=0.01)
    assert report["w1"] == pytest.approx(WEIGHTS[1], abs=0.01)


def require_one_cluster(folder: Path, status: JobStatus, nodes: list[str]) -> None:
    """At the start of each function the cluster was complete, and the same for all."""
    expected: dict[str, list[str | None]] = {}
    for name, node in sorted(status.nodes.items()):
        expected.setdefault(name.rpartition("-")[0], []).append(node.address)
    assert all(address for addresses in expected.values() for address in addresses)
    for name in nodes:
        noted = notes_of(folder, name)[0]
        role, _, index = name.rpartition("-")
        assert noted["spec"] == expected
        assert noted["config"] == {
            "cluster": expected,
            "task": {"type": role, "index": int(index)},
        }


def test_an_evaluator_that_raises_harms_nobody(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def evaluator(ctx: Any) -> None:
        msg = "no sample for the evaluator"
        raise ValueError(msg)

    folder = str(tmp_path)
    make_t_env(1)
    plan = headrace.tensorflow.train(
        None, lambda ctx: hold(folder), evaluator=evaluator, max_restarts=1, name="raises"
    )
    job = plan.submit()
    with held(tmp_path):
        until_job(job, lambda: evaluator_of(job).life == 1)
        until_job(job, lambda: evaluator_of(job).state == "failed")
    status = job.wait(timeout_s=60).status
    assert states(status) == {"worker-0": "finished", "evaluator-0": "failed"}


def evaluator_of(job: JobHandle) -> NodeStatus:
    return job.status().nodes.get("evaluator-0", NodeStatus(state="none"))


def test_plans_that_cannot_work_are_refused_with_a_way_out(make_t_env: MakeEnvironment) -> None:
    t_env = make_t_env(1)
    add_numbers(t_env, 10)
    rows = t_env.from_path("numbers")
    with pytest.raises(PlanError, match=r"chief=True needs parameter servers in stream mode"):
        headrace.tensorflow.train(rows, print, chief=True)
    with pytest.raises(ConfigError, match=r"tensorboard=True .* give log_dir or output_dir"):
        headrace.tensorflow.train(rows, print, tensorboard=True)
