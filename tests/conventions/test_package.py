"""What `pip` and a user's program see."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import headrace
from headrace import errors

ROOT = Path(__file__).resolve().parents[2]


def test_the_jar_was_built_from_the_present_sources() -> None:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    assert hook.built_fingerprint() == hook.fingerprint(), "run `make java`"


def test_every_requirement_is_pinned() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    wanted = {
        match.lower().replace("_", "-")
        for match in re.findall(r'^ +"([a-zA-Z0-9_-]+)[>=]=', project, re.MULTILINE)
    } | {"torch"}
    pins = (ROOT / "constraints.txt").read_text()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in pins.splitlines()}
    assert wanted >= {"apache-flink", "pyarrow", "pytest"}
    assert wanted <= pinned


def test_pins_carry_no_local_version_and_no_address() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            assert re.fullmatch(r'[\w.-]+==[\w.]+(?: ; python_version >= "3\.11")?', line)


def test_every_error_that_users_meet_can_be_imported_from_the_top() -> None:
    assert set(errors.__all__) <= set(headrace.__all__)
    assert all(getattr(headrace, name) is getattr(errors, name) for name in errors.__all__)


def test_the_version_is_a_number_of_three_parts() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", headrace.__version__)
