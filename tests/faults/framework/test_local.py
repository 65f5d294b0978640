"""A group of processes without Flink and without a master."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace._environ import environment_value
from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, PlanError, UserCodeError, WaitTimeoutError
from headrace.framework.local import LocalGroup, run_local
from headrace.framework.local_role import LocalRole
from tests.waiting import live_until_ended


def workers(entry: Callable[..., object], **settings: Any) -> dict[str, LocalRole]:
    return {"worker": LocalRole(entry=entry, **settings)}


def serve(spec: Any, link: Any) -> None:
    """A role that would never end by itself."""
    link.publish(f"server-{spec.index}", f"{spec.cluster} {spec.options}")
    link.lookup("never", 1000.0)


def test_processes_meet_and_their_last_report_is_the_result() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        link.publish(f"n{spec.index}", str(spec.index * spec.options["factor"]))
        found = [int(link.lookup(f"n{i}", 10.0)) for i in range(spec.parallelism)]
        for step in range(100):
            link.report({"step": step, "sum": sum(found)}, step, 2 * step)

    results = run_local(workers(entry, parallelism=3, options={"factor": 10}), timeout_s=30)
    assert [result.node for result in results] == ["worker-0", "worker-1", "worker-2"]
    for result in results:
        assert result.values == {"step": 99.0, "sum": 30.0}
        assert (result.rows_in, result.rows_out, result.was_stopped) == (99, 198, False)


def test_the_first_failure_ends_the_others_and_is_raised_with_its_traceback() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        if spec.index == 1:
            msg = "boom"
            raise ValueError(msg)
        link.lookup("never", 1000.0)

    with pytest.raises(UserCodeError) as caught:
        run_local(workers(entry, parallelism=2), timeout_s=30)
    error = caught.value
    assert (error.node, error.summary, error.exit_code) == ("worker-1", "ValueError: boom", 1)
    assert error.traceback is not None
    assert "raise ValueError(msg)" in error.traceback
    assert "headrace/framework" not in error.traceback


def test_a_killed_process_is_told_with_its_signal() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(
        UserCodeError, match=r"worker-0: The process was lost.*memory"
    ) as caught:
        run_local(workers(entry), timeout_s=30)
    assert caught.value.signal == "SIGKILL"


def test_stop_job_ends_the_whole_group_with_success() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        if spec.index == 0:
            link.stop_job("enough")
        link.lookup("never", 1000.0)

    results = run_local(workers(entry, parallelism=2), timeout_s=30)
    assert [result.was_stopped for result in results] == [True, True]


def test_close_kills_what_runs_and_leaves_no_file(
    tmp_path: Path, wait_for_file: Callable[..., str], wait_gone: Callable[..., None]
) -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import subprocess
        from pathlib import Path

        lone = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        place = Path(spec.options["place"])
        (place / "new").write_text(f"{os.getpid()} {lone.pid}")
        (place / "new").rename(place / "pids")
        lone.wait()

    (tmp_path / "work").mkdir()
    group = LocalGroup(
        workers(entry, options={"place": str(tmp_path)}), work_dir=tmp_path / "work"
    )
    group.start()
    pids = [int(pid) for pid in wait_for_file(tmp_path / "pids").split()]
    with pytest.raises(WaitTimeoutError):
        group.wait(0.01)
    group.close()
    group.close()
    wait_gone(*pids)
    assert list((tmp_path / "work").iterdir()) == []


def test_the_output_arrives_line_by_line_with_the_name_in_front() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import sys

        sys.stdout.write(f"hello ä {spec.index}\nsecond\nno newline")

    written: list[str] = []
    with LocalGroup(workers(entry, parallelism=2), sink=written.append) as group:
        group.wait(30)
    lines = "".join(written).splitlines()
    for index in range(2):
        name = f"worker-{index}: "
        own = [line for line in lines if line.startswith(name)]
        assert own == [f"{name}hello ä {index}", f"{name}second", f"{name}no newline"]


def test_a_thread_that_never_ends_holds_the_end_for_the_stop_timeout_only() -> None:
    def entry(spec, link):  # type: ignore[no-untyped-def]
        import threading

        threading.Thread(target=live_until_ended, name="endless").start()

    written: list[str] = []
    quick = TimeoutConfig(stop_timeout_s=0.3)
    with LocalGroup(workers(entry), timeouts=quick, sink=written.append) as group:
        assert len(group.wait(30)) == 1
    assert "`timeouts.stop_timeout_s`; threads still running: ['endless']" in "".join(written)


def test_a_function_that_cannot_travel_is_a_plan_error() -> None:
    lock = __import__("threading").Lock()
    with pytest.raises(PlanError, match="cannot be pickled"):
        run_local(workers(lambda spec, link: lock))


def test_roles_that_do_not_decide_are_stopped_when_the_others_have_ended() -> None:
    def train(spec, link):  # type: ignore[no-untyped-def]
        seen = [link.lookup(f"server-{index}", 30.0) for index in range(2)]
        hosts = {"worker": ("127.0.0.1",) * 3, "ps": ("127.0.0.1",) * 2}
        assert seen == [f"{hosts} {{'a': 1}}"] * 2
        link.report({"sum": 1.0}, 5, 0)

    roles = {
        **workers(train, parallelism=3),
        "ps": LocalRole(entry=serve, parallelism=2, is_deciding=False, options={"a": 1}),
    }
    results = run_local(roles, timeout_s=60)
    ended = {result.node: (result.rows_in, result.was_stopped) for result in results}
    assert ended == {
        "worker-0": (5, False),
        "worker-1": (5, False),
        "worker-2": (5, False),
        "ps-0": (0, True),
        "ps-1": (0, True),
    }


def test_what_ignores_the_stop_is_killed_after_the_grace_and_that_is_success(
    tmp_path: Path, wait_gone: Callable[..., None]
) -> None:
    pid_file = tmp_path / "pid"

    def deaf(spec, link):  # type: ignore[no-untyped-def]
        import signal

        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pid_file.write_text(str(os.getpid()))
        link.publish("deaf", "yes")
        live_until_ended()

    roles = {
        **workers(lambda spec, link: link.lookup("deaf", 30.0)),
        "ps": LocalRole(entry=deaf, is_deciding=False),
    }
    results = run_local(roles, timeouts=TimeoutConfig(stop_grace_s=0.2), timeout_s=60)
    assert [result.was_stopped for result in results] == [False, True]
    wait_gone(int(pid_file.read_text()))


def test_a_failure_of_a_role_that_does_not_decide_is_one_while_the_others_run() -> None:
    def fail(spec, link):  # type: ignore[no-untyped-def]
        msg = "no port"
        raise OSError(msg)

    roles = {**workers(serve), "ps": LocalRole(entry=fail, is_deciding=False)}
    with pytest.raises(UserCodeError, match="no port") as caught:
        run_local(roles, timeout_s=60)
    assert caught.value.node == "ps-0"


def test_each_role_has_its_own_environment() -> None:
    def look(spec, link):  # type: ignore[no-untyped-def]
        assert environment_value("KIND") == spec.role

    roles = {
        name: LocalRole(entry=look, environment={"KIND": name}) for name in ("chief", "worker")
    }
    assert [result.node for result in run_local(roles, timeout_s=60)] == ["chief-0", "worker-0"]


def test_a_group_in_which_no_role_decides_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"No role of \['ps'\] decides"):
        run_local({"ps": LocalRole(entry=serve, is_deciding=False)})


def test_each_process_of_a_role_with_ports_has_one_that_all_know() -> None:
    def listen(spec, link):  # type: ignore[no-untyped-def]
        import socket

        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", spec.port))
            listener.listen()
            link.publish(f"listens-{spec.index}", "yes")
            link.lookup("never", 1000.0)

    def connect(spec, link):  # type: ignore[no-untyped-def]
        import socket

        assert spec.port is None
        assert list(spec.addresses) == ["ps"]
        for index, address in enumerate(spec.addresses["ps"]):
            link.lookup(f"listens-{index}", 30.0)
            host, port = address.split(":")
            socket.create_connection((host, int(port)), timeout=10.0).close()
        link.report({"ports": len(set(spec.ports["ps"]))}, 0, 0)

    roles = {
        **workers(connect),
        "ps": LocalRole(entry=listen, parallelism=2, is_deciding=False, has_port=True),
    }
    assert run_local(roles, timeout_s=60)[0].values == {"ports": 2}
