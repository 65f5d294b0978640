"""Which failures of a submission are told as those of a restore."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.recovery import recovery_error

PATH = "execution.state-recovery.path"


class Options(dict[str, str]):
    """As Flink's `Configuration`."""

    def getString(self, key: str, default: str | None) -> str | None:  # noqa: N802 - Flink's name
        return self.get(key, default)


def told(options: dict[str, str], error: BaseException) -> str | None:
    nothing: Any = None
    flink = FlinkEnvironment(
        env=nothing, t_env=nothing, j_configuration=Options(options), is_embedded=True
    )
    found = recovery_error(flink, "delays", error)
    return None if found is None else str(found)


@pytest.mark.parametrize("key", [PATH, "execution.savepoint.path"])
@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (RuntimeError("Cannot find meta data file '_metadata' of a savepoint"), "chk-N"),
        (
            RuntimeError("Could not find a file system implementation for scheme 'file'"),
            "by a URI that the JobManager can read",
        ),
        (
            RuntimeError("Cannot map checkpoint/savepoint state for operator 1"),
            "the name of the cluster ('delays')",
        ),
    ],
)
def test_the_option_and_what_to_do_are_told(key: str, error: Exception, hint: str) -> None:
    text = told({key: "file:///saved"}, error)
    assert text is not None
    assert text.startswith(f"The job cannot be restored from {key}='file:///saved'. ")
    assert hint in text
    assert text.endswith(f"Flink says: RuntimeError: {error}")


def test_what_flink_says_of_a_savepoint_stands_alone_where_nothing_else_is_known() -> None:
    error = RuntimeError("Failed to rollback to checkpoint/savepoint: max parallelism mismatch")
    text = told({PATH: "file:///saved"}, error)
    assert text == (
        f"The job cannot be restored from {PATH}='file:///saved'. "
        f"Flink says: RuntimeError: {error}"
    )


def test_another_failure_is_not_one_of_the_restore() -> None:
    error = RuntimeError("Cannot find a savepoint")
    assert told({}, error) is None
    elsewhere = RuntimeError("FileNotFoundException: /data/rows.csv")
    assert told({PATH: "file:///saved"}, elsewhere) is None
    assert told({PATH: "file:///saved"}, RuntimeError("Could not acquire a slot")) is None
    assert told({PATH: "file:///saved"}, KeyboardInterrupt("savepoint")) is None
