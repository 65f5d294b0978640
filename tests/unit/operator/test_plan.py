"""What a role's settings become, and what is refused before a job is submitted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.config import MirrorConfig, RoleConfig, TimeoutConfig
from headrace.errors import PlanError
from headrace.framework import Runner, RunnerCommand, RunnerContext
from headrace.operator.plan import role_document, role_payload


def entry(ctx: object) -> None: ...


class OwnRunner(Runner):
    def command(self, context: RunnerContext) -> RunnerCommand:
        return RunnerCommand(argv=("true",))


BOARD = RoleConfig(runner="tensorboard", options={"log_dir": "/logs"})


def spec_of(config: RoleConfig) -> dict[str, Any]:
    document = json.loads(role_document("any", config, TimeoutConfig(), None))
    spec: dict[str, Any] = document["spec"]
    return spec


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (RoleConfig(), r"entry=None does not fit runner='function', which takes a function"),
        (RoleConfig(entry="train.py"), r"a path needs runner='script'"),
        (RoleConfig(entry=entry, runner="script"), r"takes the path of a script"),
        (RoleConfig(entry=entry, runner="tensorboard"), r"which takes no entry"),
        (RoleConfig(runner="tensorboard"), r"needs \['log_dir'\] in options=\{\}"),
        (RoleConfig(entry=entry, runner="mpi"), r"no runner 'mpi'.*'tensorboard'"),
        (RoleConfig(entry=entry, runner=3), r"runner=3 must be the name"),
    ],
)
def test_a_runner_that_does_not_fit_is_refused_with_the_role(
    config: RoleConfig, text: str
) -> None:
    with pytest.raises(PlanError, match=f"role 'w': .*{text}"):
        role_payload("w", config)


@pytest.mark.parametrize(
    "config",
    [
        RoleConfig(entry=entry),
        RoleConfig(entry="train.py", runner="script"),
        BOARD,
        RoleConfig(runner=OwnRunner),
        RoleConfig(entry=entry, runner=OwnRunner),
    ],
)
def test_what_fits_is_planned(config: RoleConfig) -> None:
    assert role_payload("w", config)


def test_tensorboard_has_a_port_without_asking_and_shows_its_url() -> None:
    spec = spec_of(BOARD)
    assert (spec["runner"], spec["has_port"], spec["url_scheme"]) == (
        "tensorboard",
        True,
        "http",
    )


@pytest.mark.parametrize("has_port", [True, False])
def test_another_role_has_a_port_if_it_asks_for_one(has_port: bool) -> None:
    spec = spec_of(RoleConfig(entry=entry, has_port=has_port))
    assert (spec["has_port"], spec["url_scheme"]) == (has_port, None)


@pytest.mark.parametrize(
    ("config", "after_ms"),
    [
        (RoleConfig(entry=entry), 10_000),
        (RoleConfig(entry=entry, spare_after_s=0), 0),
        (RoleConfig(entry=entry, spare_after_s=1.5), 1_500),
        (RoleConfig(entry=entry, spare_after_s=None), None),
        (RoleConfig(entry=entry, mirror=MirrorConfig(uri="s3://bucket/model.pt")), None),
        (RoleConfig(entry="train.py", runner="script"), None),
        (RoleConfig(entry=entry, runner=OwnRunner), None),
        (BOARD, None),
    ],
)
def test_a_spare_is_for_functions_without_a_mirror(
    config: RoleConfig, after_ms: int | None
) -> None:
    document = json.loads(role_document("any", config, TimeoutConfig(), None))
    assert document["spare_after_ms"] == after_ms
