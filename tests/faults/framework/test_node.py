"""A node without a master, driven by a test that plays the JVM."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headrace.config import TimeoutConfig
from headrace.framework import NodeSpec, Runner, RunnerCommand, RunnerContext, dump_payload
from tests.waiting import live_until_ended, until

if TYPE_CHECKING:
    from tests.faults.framework.conftest import Child, Cluster

Wait = Callable[..., None]
WaitForFile = Callable[..., str]


def fails(node: Child) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the failure in `process_ended`, and the `fail` line after it."""
    ended = node.expect("process_ended")
    assert ended["outcome"] == "failed"
    failure: dict[str, Any] = ended["failure"]
    return failure, node.expect("fail")


def test_a_function_runs_and_its_end_is_told(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        link.report({"loss": 1.0}, 5, 6)

    node = cluster.node(entry)
    started = node.expect("process_started")
    assert os.getpgid(node.popen.pid) != started["pid"]
    assert node.expect("report")["values"] == {"loss": 1.0}
    assert node.expect("process_ended") == {
        "type": "process_ended",
        "attempt": 1,
        "life": 0,
        "outcome": "finished",
        "failure": None,
        "text": None,
    }
    node.send("stop", reason="end")
    assert node.wait(3) == 0


def test_an_exception_arrives_with_its_traceback_and_the_last_lines(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        sys.stdout.write("before the end\n")
        msg = "boom"
        raise ValueError(msg)

    failure, fail = fails(cluster.node(entry))
    assert (failure["kind"], failure["message"]) == ("user_code", "ValueError: boom")
    assert failure["exit_code"] == 1
    assert "raise ValueError(msg)" in failure["traceback"]
    assert "headrace/framework" not in failure["traceback"]
    assert "before the end" in failure["last_lines"]
    assert fail["message"].startswith("worker-0: ValueError: boom")
    assert "raise ValueError(msg)" in fail["message"]
    assert fail["is_restartable"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_process_that_a_signal_ends_is_told_with_it(
    cluster: Cluster, number: signal.Signals
) -> None:
    node = cluster.node(sleeper())
    os.kill(node.expect("process_started")["pid"], number)
    failure, fail = fails(node)
    assert (failure["kind"], failure["signal"]) == ("process_lost", number.name)
    assert failure["exit_code"] is None
    assert number.name in fail["message"]
    assert fail["is_restartable"]


def test_a_segmentation_fault_shows_where_python_was(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import ctypes

        ctypes.string_at(0)

    failure, _ = fails(cluster.node(entry))
    assert failure["signal"] == "SIGSEGV"
    assert any("string_at" in line for line in failure["last_lines"])


@pytest.mark.parametrize(("code", "exit_code"), [(3, 3), ("bye", 1)], ids=["number", "text"])
def test_sys_exit_with_a_code_is_a_failure(
    cluster: Cluster, code: int | str, exit_code: int
) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        sys.exit(code)

    failure, _ = fails(cluster.node(entry))
    assert failure["message"] == f"sys.exit({code!r}) was called"
    assert failure["exit_code"] == exit_code


def test_os_exit_with_a_code_is_a_failure_that_tells_it(cluster: Cluster) -> None:
    failure, fail = fails(cluster.node(lambda spec, link: os._exit(7)))
    assert (failure["kind"], failure["exit_code"]) == ("user_code", 7)
    assert "exit code 7" in fail["message"]


def test_sys_exit_without_a_code_is_success(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        raise SystemExit

    assert cluster.node(entry).expect("process_ended")["outcome"] == "finished"


def test_a_missing_module_fails_for_good_and_says_what_to_ship(cluster: Cluster) -> None:
    import sys
    import types

    module = types.ModuleType("gone_for_node_test")
    exec("def train(spec, link): pass", module.__dict__)
    sys.modules["gone_for_node_test"] = module
    payload = dump_payload(entry=module.train)
    del sys.modules["gone_for_node_test"]
    failure, fail = fails(cluster.node(payload=payload))
    assert failure["kind"] == "environment"
    assert failure["traceback"] is None  # it would show our frames only
    assert "'gone_for_node_test'" in fail["message"]
    assert "add_python_file" in fail["message"]
    assert not fail["is_restartable"]


def test_a_shipped_module_that_raises_when_it_is_imported_shows_where(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib
    import sys

    file = tmp_path / "shipped_for_node_test.py"
    file.write_text("def train(spec, link): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("shipped_for_node_test")
    payload = dump_payload(entry=module.train)
    del sys.modules["shipped_for_node_test"]
    file.write_text("TABLE = {}\nTABLE['no such key']\n")
    path = f"{tmp_path}:{Path(__file__).resolve().parents[3] / 'src'}"
    failure, fail = fails(
        cluster.node(payload=payload, spec=NodeSpec(environment={"PYTHONPATH": path}))
    )
    assert failure["kind"] == "environment"
    assert "KeyError: 'no such key'" in failure["message"]
    assert "TABLE['no such key']" in failure["traceback"]
    assert not fail["is_restartable"]


def test_an_import_error_in_the_function_fails_for_good(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import nowhere_to_be_found  # type: ignore[import-not-found]

        nowhere_to_be_found.run()

    failure, fail = fails(cluster.node(entry))
    assert failure["kind"] == "user_code"
    assert not fail["is_restartable"]


def test_a_million_lines_stall_nothing_and_the_last_are_kept(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        for start in range(0, 1_000_000, 10_000):
            sys.stdout.write("".join(f"line {start + i}\n" for i in range(10_000)))
        raise SystemExit(1)

    node = cluster.node(entry)
    failure, _ = fails(node)
    assert failure["last_lines"][:2] != ["line 0", "line 1"]
    assert "line 999999" in failure["last_lines"]
    assert len(failure["last_lines"]) == 50
    assert node.log.count("\nline ") >= 999_999
    assert peak_mib(node.popen.pid) < 80


def test_ten_million_bytes_without_a_newline_do_no_harm(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        for _ in range(1000):
            sys.stdout.write("x" * 10_000)
        os._exit(2)

    node = cluster.node(entry)
    failure, _ = fails(node)
    assert failure["exit_code"] == 2
    assert all(len(line) <= 1000 for line in failure["last_lines"])
    assert node.log.count("x") >= 10_000_000
    assert peak_mib(node.popen.pid) < 80


def test_closed_stdout_and_stderr_do_no_harm(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        sys.stdout.close()
        os.close(1)
        os.close(2)

    assert cluster.node(entry).expect("process_ended")["outcome"] == "finished"


def test_a_forked_child_that_keeps_the_pipe_open_is_killed_with_the_end(
    cluster: Cluster, tmp_path: Path, wait_gone: Wait
) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import signal

        pid = os.fork()
        if pid == 0:
            os.setsid()
            signal.pause()
        (Path(spec.options["place"]) / "pid").write_text(str(pid))

    spec = NodeSpec(options={"place": str(tmp_path)})
    assert cluster.node(entry, spec=spec).expect("process_ended")["outcome"] == "finished"
    wait_gone(int((tmp_path / "pid").read_text()), timeout_s=0.0)


def test_a_fork_that_comes_back_from_the_function_as_well_changes_nothing(
    cluster: Cluster,
) -> None:
    node = cluster.node(lambda spec, link: os.fork())
    assert node.expect("process_ended")["outcome"] == "finished"


def test_a_process_that_blocks_sigterm_is_killed_after_the_grace(
    cluster: Cluster, wait_gone: Wait
) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        link.report({"ready": 1.0})
        signal.pause()

    node = cluster.node(entry)
    pid = node.expect("process_started")["pid"]
    node.expect("report")
    begin = time.monotonic()
    node.send("stop", reason="cancel")
    assert node.expect("process_ended")["outcome"] == "stopped"
    assert node.wait(3) == 0
    assert 0.9 < time.monotonic() - begin < 3.5  # the grace is 1 s here
    wait_gone(pid, timeout_s=0.0)


def test_a_stopped_function_cleans_up_on_its_way_out(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import signal

        link.report({"ready": 1.0})
        try:
            signal.pause()
        except SystemExit:
            link.report({"ready": 1.0, "cleaned_up": 1.0})
            raise

    node = cluster.node(entry, spec=NodeSpec(timeouts=TimeoutConfig(stop_grace_s=10.0)))
    assert node.expect("report")["values"] == {"ready": 1.0}
    begin = time.monotonic()
    node.send("stop", reason="cancel")
    assert node.expect("report")["values"] == {"ready": 1.0, "cleaned_up": 1.0}
    assert node.expect("process_ended")["outcome"] == "stopped"
    assert node.wait(9) == 0
    assert time.monotonic() - begin < 9.0  # before the grace is over


def test_the_end_of_stdin_ends_everything_within_two_seconds(
    cluster: Cluster, tmp_path: Path, wait_for_file: WaitForFile, wait_gone: Wait
) -> None:
    spec = NodeSpec(options={"place": str(tmp_path)})
    node = cluster.node(family_starter(), spec=spec)
    family = json.loads(wait_for_file(tmp_path / "pids"))
    pid = node.expect("process_started")["pid"]
    begin = time.monotonic()
    node.close_stdin()
    node.wait(3)
    wait_gone(pid, *family, timeout_s=0.0)
    assert time.monotonic() - begin < 2.0
    assert not (tmp_path / "node-0").exists()


def test_sigterm_ends_the_node_with_everything(
    cluster: Cluster, tmp_path: Path, wait_for_file: WaitForFile, wait_gone: Wait
) -> None:
    spec = NodeSpec(options={"place": str(tmp_path)})
    node = cluster.node(family_starter(), spec=spec)
    family = json.loads(wait_for_file(tmp_path / "pids"))
    node.popen.terminate()
    assert node.wait(3) == 0
    wait_gone(*family, timeout_s=0.0)


def test_a_killed_node_takes_its_process_with_it(cluster: Cluster, wait_gone: Wait) -> None:
    node = cluster.node(sleeper())
    pid = node.expect("process_started")["pid"]
    node.popen.kill()
    node.wait(3)
    wait_gone(pid)


def test_a_script_gets_its_arguments_and_environment(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import os, sys\n"
        "from headrace.framework import ProcessLink, read_process_spec\n"
        "print(sys.argv[1:], os.environ['COLOUR'], read_process_spec().node)\n"
        "ProcessLink.from_environment().report({'x': 2.0})\n"
        "sys.exit(4)\n"
    )
    spec = NodeSpec(
        runner="script",
        script=str(script),
        args=("--rate", "0.1"),
        environment={"COLOUR": "red"},
    )
    node = cluster.node(spec=spec, payload=b"")
    failure, _ = fails(node)
    assert failure["exit_code"] == 4
    assert failure["last_lines"] == ["['--rate', '0.1'] red worker-0"]
    assert any(line["type"] == "report" for line in node.seen)


def test_a_missing_script_is_a_clear_failure(cluster: Cluster) -> None:
    spec = NodeSpec(runner="script", script="nowhere.py")
    failure, fail = fails(cluster.node(spec=spec, payload=b""))
    assert failure["kind"] == "environment"
    assert "'nowhere.py'" in fail["message"]
    assert not fail["is_restartable"]


def test_an_own_runner_class_says_what_is_run(cluster: Cluster) -> None:
    class Shell(Runner):
        def command(self, context: RunnerContext) -> RunnerCommand:
            text = f"echo $COLOUR {context.spec.node}; exit 5"
            return RunnerCommand(argv=("sh", "-c", text), environment={"COLOUR": "blue"})

    node = cluster.node(spec=NodeSpec(runner=None), payload=dump_payload(runner=Shell))
    failure, _ = fails(node)
    assert (failure["exit_code"], failure["last_lines"]) == (5, ["blue worker-0"])


def test_a_runner_that_raises_fails_the_node_with_its_traceback(cluster: Cluster) -> None:
    class Broken(Runner):
        def command(self, context: RunnerContext) -> RunnerCommand:
            msg = "no idea"
            raise KeyError(msg)

    payload = dump_payload(runner=Broken)
    failure, _ = fails(cluster.node(spec=NodeSpec(runner=None), payload=payload))
    assert failure["kind"] == "environment"
    assert "KeyError: 'no idea'" in failure["traceback"]


@pytest.mark.parametrize("how", ["stop", "end of file", "TERM"])
def test_a_runner_that_never_returns_does_not_hold_the_end_of_its_node(
    cluster: Cluster, tmp_path: Path, how: str
) -> None:
    class Endless(Runner):
        def command(self, context: RunnerContext) -> RunnerCommand:
            (tmp_path / "asked").touch()
            live_until_ended()

    node = cluster.node(spec=NodeSpec(runner=None), payload=dump_payload(runner=Endless))
    until((tmp_path / "asked").exists)
    if how == "stop":
        node.send("stop", reason="enough")
    elif how == "end of file":
        node.close_stdin()
    else:
        os.kill(node.popen.pid, signal.SIGTERM)
    assert node.wait(10) == 0


def test_a_line_that_the_protocol_does_not_know_fails_the_node(cluster: Cluster) -> None:
    node = cluster.node(sleeper())
    node.expect("process_started")
    node.send("dance")
    assert "dance" in node.expect("fail")["message"]
    assert node.wait(3) == 1


def test_the_master_less_process_learns_that_there_is_no_group(cluster: Cluster) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        link.lookup("peer", 10.0)

    failure, _ = fails(cluster.node(entry))
    assert "there is no master" in failure["message"]


def peak_mib(pid: int) -> float:
    """Return the most memory that the process has held, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(pid)


def sleeper() -> Callable[..., None]:
    """Return a function that waits until a signal ends it; nested, so it travels by value."""

    def entry(spec: Any, link: Any) -> None:
        import signal

        signal.pause()

    return entry


def family_starter() -> Callable[..., None]:
    """Return a function that starts a child, a grandchild and one without an environment."""

    def entry(spec: Any, link: Any) -> None:
        import json
        import signal
        import subprocess
        from pathlib import Path

        text = "sleep 1000 & echo $!; exec >&-; wait"
        shell = subprocess.Popen(
            ["setsid", "sh", "-c", text], stdout=subprocess.PIPE, start_new_session=True
        )
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        bare = subprocess.Popen(["setsid", "env", "-i", "sleep", "1000"])
        place = Path(spec.options["place"])
        (place / "new").write_text(json.dumps([shell.pid, grandchild, bare.pid]))
        (place / "new").rename(place / "pids")
        signal.pause()

    return entry
