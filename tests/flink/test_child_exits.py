"""Which children that could not be started are worth another try."""

from __future__ import annotations

from typing import Any

import pytest
from py4j.protocol import Py4JJavaError

START = 'Cannot run program "/env/bin/python" (in directory "/work"): error={}'


def io_error(classes: Any, text: str, cause: Any = None) -> Any:
    return classes.java.io.IOException(text, cause)


def is_for_good(classes: Any, cause: Any) -> bool:
    """Whether Flink fails the job for good because a child could not be started for `cause`."""
    ended = classes.org.headrace.process.ChildExit(
        classes.java.util.OptionalInt.empty(), classes.java.util.ArrayList(), cause
    )
    name = ended.toException("text").getClass().getSimpleName()
    assert name in ("SuppressRestartsException", "PythonProcessException")
    return bool(name == "SuppressRestartsException")


@pytest.mark.parametrize(
    "error",
    [
        "11, Resource temporarily unavailable",
        "12, Cannot allocate memory",
        "23, Too many open files in system",
        "24, Too many open files",
    ],
)
def test_a_machine_that_lacks_something_for_now_gets_another_try(
    classes: Any, error: str
) -> None:
    start = io_error(classes, START.format(error), io_error(classes, f"error={error}"))
    assert not is_for_good(classes, start)
    wrapped = classes.java.lang.RuntimeException("No environment.", start)
    assert not is_for_good(classes, wrapped)


@pytest.mark.parametrize(
    "error", ["2, No such file or directory", "13, Permission denied", "111, what is new"]
)
def test_other_errors_of_a_start_fail_the_job_for_good(classes: Any, error: str) -> None:
    assert is_for_good(
        classes, io_error(classes, START.format(error), io_error(classes, f"error={error}"))
    )


def test_a_program_that_is_not_there_fails_the_job_for_good_whatever_its_name(
    classes: Any,
) -> None:
    command = classes.java.util.ArrayList()
    command.add('/no/such": error=11, place')
    with pytest.raises(Py4JJavaError) as caught:
        classes.java.lang.ProcessBuilder(command).start()
    assert "error=2," in caught.value.java_exception.getMessage()
    assert is_for_good(classes, caught.value.java_exception)


def test_what_pip_says_is_no_error_of_a_start(classes: Any) -> None:
    text = "pip failed: could not build a wheel: error=12, Cannot allocate memory"
    assert is_for_good(classes, classes.java.io.IOException(text))
    assert is_for_good(classes, classes.java.lang.RuntimeException(START.format("11, no")))
