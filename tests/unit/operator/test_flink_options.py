"""What the user has set by an older name of an option is set, and stays as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import (
    CHECKPOINT_DIR,
    CHECKPOINT_STORAGE,
    RESTART_STRATEGY,
    SAVEPOINT_DIR,
    failure_defaults,
)
from headrace.operator.local_checkpoints import LocalCheckpoints


@dataclass
class Configuration:
    """What of a `Configuration` of Flink's is called, by exact names as there."""

    values: dict[str, str] = field(default_factory=dict)

    def getString(self, key: str, default: str | None) -> str | None:  # noqa: N802 - Java's
        return self.values.get(key, default)

    def setString(self, key: str, value: str) -> None:  # noqa: N802 - Java's
        self.values[key] = value

    def removeKey(self, key: str) -> None:  # noqa: N802 - Java's
        del self.values[key]


def planned(configuration: Configuration) -> FlinkEnvironment:
    unused = cast("Any", None)
    return FlinkEnvironment(
        env=unused, t_env=unused, j_configuration=configuration, is_embedded=True
    )


@pytest.mark.parametrize(
    ("key", "older"),
    [
        (RESTART_STRATEGY, "restart-strategy"),
        (CHECKPOINT_DIR, "state.checkpoints.dir"),
        (CHECKPOINT_DIR, "state.backend.fs.checkpointdir"),
        (CHECKPOINT_STORAGE, "state.checkpoint-storage"),
        (SAVEPOINT_DIR, "state.savepoints.dir"),
        (SAVEPOINT_DIR, "savepoints.state.backend.fs.dir"),
    ],
)
def test_a_default_leaves_what_is_set_by_an_older_name(key: str, older: str) -> None:
    configuration = Configuration({older: "theirs"})
    flink = planned(configuration)
    flink.set_default(key, "ours")
    assert configuration.values == {older: "theirs"}
    assert flink.option(key) == "theirs"
    configuration.values[key] = "newer"
    assert flink.option(key) == "newer", "Flink looks for this name first"


def test_a_default_is_set_where_nothing_is() -> None:
    configuration = Configuration()
    planned(configuration).set_default(RESTART_STRATEGY, "ours")
    assert configuration.values == {RESTART_STRATEGY: "ours"}


def test_limits_of_a_strategy_that_the_user_has_set_are_flinks() -> None:
    ours = failure_defaults(7, has_rows=True, strategy="exponential-delay")
    assert [key for key in ours if key.startswith("restart-strategy")] == []
    fixed = failure_defaults(7, has_rows=True, strategy="fixed-delay")
    assert fixed["restart-strategy.fixed-delay.attempts"] == "7"
    assert RESTART_STRATEGY not in fixed


@pytest.mark.parametrize("name", ["execution.checkpointing.dir", "state.checkpoints.dir"])
def test_a_job_with_a_directory_for_checkpoints_gets_none_that_goes_with_it(name: str) -> None:
    configuration = Configuration({name: "file:///kept"})
    LocalCheckpoints(planned(configuration), is_drained=True).close()
    assert configuration.values == {name: "file:///kept"}


def test_a_job_without_one_gets_one() -> None:
    configuration = Configuration()
    checkpoints = LocalCheckpoints(planned(configuration), is_drained=True)
    place = Path(urlsplit(configuration.values[CHECKPOINT_DIR]).path)
    assert place.is_dir()
    checkpoints.forget()
    assert configuration.values == {}
    checkpoints.close()
    assert not place.exists()


def test_attempts_of_a_job_on_rows_are_counted_anew_and_those_of_the_group_are_not() -> None:
    of_rows = failure_defaults(7, has_rows=True)
    prefix = "restart-strategy.exponential-delay"
    assert of_rows[RESTART_STRATEGY] == "exponential-delay"
    assert of_rows[f"{prefix}.attempts-before-reset-backoff"] == "7"
    assert of_rows[f"{prefix}.reset-backoff-threshold"] == "15 min"
    of_group = failure_defaults(7, has_rows=False)
    assert of_group[RESTART_STRATEGY] == "fixed-delay"
    assert of_group["restart-strategy.fixed-delay.attempts"] == "7"
    assert failure_defaults(0, has_rows=True)[RESTART_STRATEGY] == "none"
