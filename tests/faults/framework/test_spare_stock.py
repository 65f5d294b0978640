"""How many spares the JVM keeps while subtasks of a role come and go."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import pytest

from headrace.framework import NodeSpec, dump_payload, encode_spec
from tests.faults.flink.sight import members
from tests.waiting import until

from .conftest import QUICK

ROOT = Path(__file__).resolve().parents[3]
JAR = ROOT / "src/headrace/_jars/headrace.jar"
PROGRAM = ROOT / "java/src/test/java/org/headrace/process/SpareStock.java"
PATIENCE_S = QUICK.process_start_timeout_s  # what a spare has to load its entry


class Stock:
    """The JVM's spares of one role; what they do is done by the lines that it is told."""

    def __init__(self, jvm: subprocess.Popen[str]) -> None:
        self._jvm = jvm

    def tell(self, line: str, times: int = 1) -> str:
        """Return the last answer."""
        assert self._jvm.stdin is not None
        assert self._jvm.stdout is not None
        answer = ""
        for _ in range(times):
            self._jvm.stdin.write(f"{line}\n")
            self._jvm.stdin.flush()
            answer = self._jvm.stdout.readline().rstrip("\n")
            assert answer not in ("", "unknown"), line
        return answer

    def await_nodes(self, count: int) -> set[int]:
        """Return the pids of the spare nodes once there are so many, and all are ready."""

        def found() -> set[int]:
            there = members(self._jvm.pid, with_spares=True)
            return {each.pid for each in there if each.kind == "node" and each.is_spare}

        def everything() -> int:
            return len(members(self._jvm.pid, with_spares=True))

        until(
            lambda: len(found()) == count and everything() == 2 * count,
            f"{count} spare nodes with a process each",
            PATIENCE_S,
            lambda: str(members(self._jvm.pid, with_spares=True)),
        )
        return found()


@pytest.fixture
def stock(tmp_path: Path) -> Iterator[Stock]:
    """A JVM with the class under test, and no Flink job."""
    flink = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    jars = [*(flink / "lib").glob("*.jar"), *(flink / "opt").glob("flink-python-*.jar")]
    class_path = ":".join(map(str, [tmp_path / "classes", JAR, *sorted(jars)]))
    javac, java = shutil.which("javac"), shutil.which("java")
    assert javac is not None
    assert java is not None
    flags = ["--release", "17", "-proc:none", "-Xlint:all", "-Werror", "-cp", class_path]
    (tmp_path / "classes").mkdir()
    subprocess.run(
        [javac, *flags, "-d", str(tmp_path / "classes"), str(PROGRAM)],
        check=True,
        timeout=PATIENCE_S,
    )
    payload = tmp_path / "payload"
    payload.write_bytes(dump_payload(entry=print))
    plan = {
        "name": "job",
        "uid_prefix": "job",
        "timeouts": asdict(QUICK),
        "python_path": [str(ROOT / "src")],
    }
    spec = encode_spec(NodeSpec(timeouts=QUICK)).decode()
    arguments = [json.dumps(plan), spec, str(payload), str(tmp_path), sys.executable]
    with (tmp_path / "jvm.log").open("wb") as log:
        jvm = subprocess.Popen(
            [
                *(java, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                *("-cp", class_path, "org.headrace.process.SpareStock", *arguments),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    with jvm:  # it ends with its stdin
        yield Stock(jvm)
        assert jvm.stdin is not None
        jvm.stdin.close()
        assert jvm.wait(PATIENCE_S) == 0


@pytest.mark.timeout(600)
def test_spares_are_as_many_as_subtasks_run_and_end_with_the_jobs_class_loader(
    stock: Stock,
) -> None:
    stock.tell("make")
    stock.tell("enter", 3)
    stock.tell("make", 4)
    three = stock.await_nodes(3)
    stock.tell("leave", 3)  # the attempt is over, and the next one is smaller
    stock.tell("enter", 2)
    taken = int(until(lambda: stock.tell("take").replace("none", ""), "a spare", PATIENCE_S))
    assert taken in three
    assert stock.await_nodes(3) == three
    stock.tell("leave for good")
    two = stock.await_nodes(2)
    assert taken in two
    assert two < three
    stock.tell("enter")
    stock.tell("make")
    stock.await_nodes(3)
    stock.tell("leave")
    stock.tell("make")  # at the first checkpoint of a smaller attempt
    assert taken in stock.await_nodes(2)
    stock.tell("release")
    assert stock.await_nodes(1) == {taken}
    stock.tell("make")
    assert stock.tell("take") == "none"
    assert stock.await_nodes(1) == {taken}
