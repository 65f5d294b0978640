"""What travels by cloudpickle, and what the failure of loading it says."""

from __future__ import annotations

import sys
import threading
import types
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.errors import ConfigError, PlanError
from headrace.framework.machine import ALL_FINISH
from headrace.framework.payload import dump_payload, load_entry, load_machine, load_runner
from headrace.framework.runner import Runner, RunnerCommand, RunnerContext
from headrace.framework.runner.failures import exit_code_of, failure_of


def test_every_part_comes_back(tmp_path: Path) -> None:
    class Mine(Runner):
        def command(self, context: RunnerContext) -> RunnerCommand:
            return RunnerCommand(argv=("true",))

    path = tmp_path / "payload"
    machine = replace(ALL_FINISH, name="mine")
    path.write_bytes(dump_payload(entry=lambda: 42, runner=Mine, machine=machine))
    assert load_entry(path)() == 42
    assert load_runner(path).__name__ == "Mine"
    assert load_machine(path).name == "mine"


def test_the_runner_loads_without_the_modules_of_the_entry(
    tmp_path: Path, gone_module: types.ModuleType
) -> None:
    class Mine(Runner):
        def command(self, context: RunnerContext) -> RunnerCommand:
            return RunnerCommand(argv=("true",))

    path = tmp_path / "payload"
    path.write_bytes(dump_payload(entry=gone_module.train, runner=Mine))
    del sys.modules["gone_for_test"]
    assert load_runner(path).__name__ == "Mine"


def test_a_missing_module_is_named_with_the_way_to_ship_it(
    tmp_path: Path, gone_module: types.ModuleType
) -> None:
    path = tmp_path / "payload"
    path.write_bytes(dump_payload(entry=gone_module.train))
    del sys.modules["gone_for_test"]
    with pytest.raises(ConfigError, match=r"'gone_for_test'.*add_python_file.*requirements"):
        load_entry(path)


def test_what_cannot_be_pickled_is_a_plan_error() -> None:
    lock = threading.Lock()
    with pytest.raises(PlanError, match=r"The entry .* cannot be pickled.*lock"):
        dump_payload(entry=lambda: lock)


def test_a_part_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(dump_payload(entry=print))
    with pytest.raises(ConfigError, match=r"holds no machine, only \['entry'\]"):
        load_machine(path)


def test_a_damaged_payload_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"\x80\x04garbage")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_entry(path)


@pytest.mark.parametrize("code", [None, 0, False])
def test_an_exit_with_success_is_no_failure(code: int | None) -> None:
    assert failure_of(SystemExit(code)) is None


@pytest.mark.parametrize(("code", "number"), [(3, 3), ("text", 1), (256 + 5, 5), (-1, 255)])
def test_an_exit_with_a_code_is_a_failure_that_tells_it(code: int | str, number: int) -> None:
    failure = failure_of(SystemExit(code))
    assert failure is not None
    assert failure.message == f"sys.exit({code!r}) was called"
    assert (failure.exit_code, exit_code_of(SystemExit(code))) == (number, number)


@pytest.mark.parametrize(
    ("error", "is_restartable"),
    [
        (ModuleNotFoundError("no"), False),
        (SyntaxError("no"), False),
        (ConfigError("no"), False),
        (ValueError("no"), True),
        (MemoryError(), True),
        (KeyboardInterrupt(), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_only_what_another_start_can_mend_is_restartable(
    error: BaseException, is_restartable: bool
) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.is_restartable is is_restartable


def test_the_traceback_keeps_the_cause_and_is_bounded() -> None:
    try:
        try:
            raise KeyError("inner")  # noqa: TRY301, EM101
        except KeyError as exc:
            raise ValueError("x" * 1_000_000) from exc
    except ValueError as exc:
        failure = failure_of(exc)
    assert failure is not None
    assert failure.traceback is not None
    assert "KeyError: 'inner'" in failure.traceback
    assert "characters left out" in failure.traceback
    assert len(failure.traceback) < 70_000
    assert len(failure.message) < 1_100


class Mute:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("odd\udce9"), r"ValueError: odd\udce9"),
        (SystemExit("odd\udce9"), r"sys.exit('odd\udce9') was called"),
        (SystemExit(Mute()), "sys.exit(a Mute) was called"),
    ],
)
def test_what_has_no_utf_8_or_no_text_at_all_is_told_all_the_same(
    error: BaseException, message: str
) -> None:
    failure = failure_of(error)
    assert failure is not None
    assert failure.message == message
    assert failure.traceback is not None
    failure.traceback.encode()


@pytest.fixture
def gone_module() -> types.ModuleType:
    module = types.ModuleType("gone_for_test")
    exec("def train(spec, link): pass", module.__dict__)
    sys.modules["gone_for_test"] = module
    return module
