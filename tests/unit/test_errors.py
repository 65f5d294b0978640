"""Errors travel between processes and keep their facts."""

from __future__ import annotations

import pickle

import pytest

from headrace import errors
from headrace.errors import HeadraceError

SAMPLES: list[HeadraceError] = [
    errors.ConfigError("a=1 must be 2"),
    errors.PlanError("no roles"),
    errors.DataError("column x"),
    errors.UsageError("not here"),
    errors.JobFailedError(job_name="delays", cause="ValueError: no"),
    errors.StopError(
        job_name="delays", target="file:///sp", cause="No space left", job_state="RUNNING"
    ),
    errors.UserCodeError(node="worker-0", summary="died", signal="SIGKILL", last_lines=("a",)),
    errors.NodeLostError(node="ps-0", silent_s=12.0, limit_s=10.0),
    errors.MasterLostError(node="ps-0", address="localhost:1", silent_s=61.0, limit_s=60.0),
    errors.JobManagerLostError(job_name="delays", cause="Connection refused"),
    errors.WaitTimeoutError(waited_for="a batch", waited_s=1.0, setting="timeout_s"),
    errors.CollectiveError(
        operation="step", waited_s=1.0, limit_s=9.0, reason="closed", is_consequence=True
    ),
    errors.ServerLostError(reason="closed"),
    errors.ExchangeError("broken"),
    errors.PeerLostError("gone"),
    errors.RowTooLargeError(row_bytes=3, limit_bytes=2),
    errors.ProtocolError("frame 99"),
    errors.IllegalTransitionError(event="NodeLost", state="FINISHED", history=("a", "b")),
]


def test_there_is_a_sample_of_every_error() -> None:
    named = {getattr(errors, name) for name in errors.__all__}
    assert named - {type(each) for each in SAMPLES} == {HeadraceError}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda each: type(each).__name__)
def test_an_error_pickles_with_its_facts_and_text(error: HeadraceError) -> None:
    if hasattr(error, "add_note"):  # Python 3.11
        error.add_note("a note must do no harm")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    facts = {key: value for key, value in vars(error).items() if not key.startswith("__")}
    assert vars(copy) == facts


def test_an_error_of_a_silent_node_names_the_setting_that_bounds_the_wait() -> None:
    text = str(errors.NodeLostError(node="ps-0", silent_s=12.0, limit_s=10.0))
    assert "ps-0" in text
    assert "12.0 s (limit 10.0 s, set by `timeouts.heartbeat_timeout_s`)" in text
