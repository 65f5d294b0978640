"""User code that misbehaves, without Flink: a bounded end, an error that says enough.

The process is started, watched and told of by the same code as in a node of a job;
`tests/flink/test_user_code.py` shows that its error is the cause of a job's failure.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from headrace import testing
from headrace.config import TimeoutConfig
from headrace.errors import UserCodeError
from tests.flink import user_code as code

ROWS = pa.table({"id": np.arange(1000)})
IMPATIENT = TimeoutConfig(stop_grace_s=0.5, stop_timeout_s=5)
_LONGEST = 250_000


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (code.exits_with_a_number, ["sys.exit(3) was called", "exit code 3"]),
        (code.exits_with_a_text, ["sys.exit('out of ideas') was called", "exit code 1"]),
        (code.faults, ["SIGSEGV", "in string_at", "in faults"]),
        (code.aborts, ["SIGABRT", "in aborts"]),
        (code.runs_into_a_memory_limit, ["MemoryError", "exit code 1"]),
        (code.recurses, ["RecursionError", "in recurses", "exit code 1"]),
        (code.raises_what_does_not_pickle, ["Unpicklable: holds a lock", "exit code 1"]),
        (code.raises_what_has_no_text, ["Mute", "exception str() failed", "exit code 1"]),
        (code.writes_bytes_that_are_no_text, ["odd\ufffd", "ValueError: odd", "exit code 1"]),
        (code.is_interrupted, ["KeyboardInterrupt", "exit code 1"]),
        (code.raises_no_exception, ["NotEvenAnException: base only", "exit code 1"]),
        (code.prints_a_million_lines, ["sys.exit(5)", "line 999999", "exit code 5"]),
        (code.closes_its_output_and_raises, ["ValueError: nobody hears", "exit code 1"]),
        (code.closes_every_file_and_raises, ["ValueError: no way out", "exit code 1"]),
        (code.starts_threads_without_end_and_raises, ["threads go on", "exit code 1"]),
        (code.forks_and_raises_in_both, ["ValueError: raised in the parent", "exit code 1"]),
        (code.leaves_a_fork_and_raises, ["ValueError: a fork is left", "exit code 1"]),
        (code.changes_the_directory_and_raises, ["ValueError: lost in /", "exit code 1"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_the_error_names_node_end_and_last_output(entry: code.Entry, says: list[str]) -> None:
    error = error_of(entry)
    for each in ["worker-1", "last words of worker-1", *says]:
        assert each in error
    assert len(error) < _LONGEST


def test_output_without_a_newline_is_the_last_output() -> None:
    error = error_of(code.writes_without_a_newline)
    for each in ["worker-1", "exit code 6", "no newline here"]:
        assert each in error


def error_of(entry: code.Entry) -> str:
    """Run `entry` in the second of two workers; return the text of the error."""
    with pytest.raises(UserCodeError) as caught:
        testing.run(code.SecondWorker(entry), ROWS, workers=2, timeouts=IMPATIENT)
    assert caught.value.node == "worker-1"
    return str(caught.value)
