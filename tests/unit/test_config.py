"""Settings refuse what cannot work, and say what would."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from headrace.config import AMConfig, ExchangeConfig, MirrorConfig, RoleConfig, TimeoutConfig
from headrace.errors import ConfigError


def entry(ctx: object) -> None: ...


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: ExchangeConfig(slots=1), r"exchange\.slots=1 .* try 2"),
        (lambda: ExchangeConfig(slot_bytes=70_000), r"slot_bytes=70000 .* try 73728"),
        (lambda: ExchangeConfig(slots=1024, slot_bytes=1 << 29), r"Try slots=3"),
        (lambda: ExchangeConfig(linger_ms=-1), r"linger_ms=-1 .* try 0"),
        (lambda: ExchangeConfig(batch_rows=True), r"batch_rows=True must be a whole number"),
        (lambda: TimeoutConfig(gather_timeout_s=0), r"gather_timeout_s=0 .* try 120"),
        (lambda: TimeoutConfig(stop_grace_s=float("inf")), r"stop_grace_s=inf"),
        (lambda: TimeoutConfig(stop_grace_s="5"), r"stop_grace_s=5"),  # type: ignore[arg-type]
        (lambda: TimeoutConfig(heartbeat_timeout_s=1), r"longer than .*try 10"),
        (lambda: AMConfig(max_restarts=-1), r"am\.max_restarts=-1 .* try 0"),
        (lambda: MirrorConfig(uri="/model.pt"), r"mirror\.uri='/model\.pt' must be a URI"),
        (lambda: MirrorConfig(uri="s3://b/m", every_s=0), r"mirror\.every_s=0 must be"),
        (lambda: RoleConfig(entry=entry, parallelism=0), r"parallelism=0 .* try 1"),
        (
            lambda: RoleConfig(entry=entry, parallelism=float("nan")),  # type: ignore[arg-type]
            r"parallelism=nan .* try 1",
        ),
        (lambda: RoleConfig(entry=entry, spare_after_s=-1), r"role\.spare_after_s=-1 must be"),
        (
            lambda: RoleConfig(entry=entry, spare_after_s=float("nan")),
            r"role\.spare_after_s=nan .*None for no spare",
        ),
        (
            lambda: RoleConfig(entry=entry, spare_after_s="5"),  # type: ignore[arg-type]
            r"role\.spare_after_s='5' must be",
        ),
        (lambda: RoleConfig(entry=3), r"role\.entry=3"),  # type: ignore[arg-type]
        (
            lambda: RoleConfig(entry=entry, environment={"A": 1}),  # type: ignore[dict-item]
            r"role\.environment holds 1",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_refused_with_its_value(
    build: Callable[[], object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        build()
