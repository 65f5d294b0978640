"""Compiles the JVM's side of the memory queue with its tests, and talks to it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import IO

_SOURCES = Path(__file__).resolve().parents[3] / "java" / "src"
_ROOT = Path("java/org/headrace")
_FLAGS = ("--release", "17", "-encoding", "UTF-8", "-proc:none", "-Xlint:all", "-Werror")
_JVM = ("-ea", "-XX:+UseSerialGC")
_BEHAVIOUR = re.compile(r"public static void (\w+)\(\)")
_PATIENCE_S = 100.0


def classpath() -> str:
    """Return the class path of Flink, PyFlink's shaded Arrow included."""
    home = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    jars = [*(home / "lib").glob("*.jar"), *(home / "opt").glob("flink-python-*.jar")]
    return ":".join(map(str, sorted(jars)))


def compile_into(directory: Path, packages: Sequence[str] = ("exchange",)) -> None:
    """Compile packages and their tests, as the build does. Blocks for some seconds.

    Other packages than "exchange" need the rest of them, too.
    """
    main, tests = _SOURCES / "main" / _ROOT, _SOURCES / "test" / _ROOT
    sources = [path for package in packages for path in (tests / package).glob("*.java")]
    if tuple(packages) == ("exchange",):
        sources += (main / "exchange").glob("*.java")
    else:
        sources += main.rglob("*.java")
        sources += [
            tests / "exchange" / f"{name}.java" for name in ("Behaviours", "TestMailbox")
        ]
    command = [_tool("javac"), *_FLAGS, "-cp", classpath(), "-d", str(directory)]
    done = subprocess.run(
        [*command, *map(str, sources)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def command(classes: Path, main_class: str, *arguments: str, heap: str = "512m") -> list[str]:
    """Return the command line that runs a class of the package."""
    name = f"org.headrace.exchange.{main_class}"
    path = f"{classes}:{classpath()}"
    return [_tool("java"), *_JVM, f"-Xmx{heap}", "-cp", path, name, *arguments]


def behaviours(package: str = "exchange") -> list[tuple[str, str]]:
    """Return (class, method) of every behaviour that the Java tests state, in source order."""
    found = []
    for source in sorted((_SOURCES / "test" / _ROOT / package).glob("*Behaviours.java")):
        found += [(source.stem, name) for name in _BEHAVIOUR.findall(source.read_text())]
    return found


def run_behaviours(classes: Path, package: str = "exchange") -> dict[tuple[str, str], str]:
    """Run all behaviours in one JVM; return the text of each failure, empty where it passed."""
    names = sorted({f"org.headrace.{package}.{name}" for name, _ in behaviours(package)})
    try:
        done = subprocess.run(
            command(classes, "Behaviours", *names),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_S,
        )
    except subprocess.TimeoutExpired as error:
        ended = (error.stdout or b"").decode().splitlines()
        msg = f"no end after {_PATIENCE_S} s; {len(ended)} have ended, the last: {ended[-1:]}"
        raise AssertionError(msg) from None
    assert done.returncode == 0, done.stdout + done.stderr
    results = {}
    for line in done.stdout.splitlines():
        outcome, class_name, method, text = line.split("\t")
        failure = text.replace("\\n", "\n") if outcome == "fail" else ""
        results[class_name.rpartition(".")[2], method] = failure
    return results


class JavaCodec:
    """Java's schemas, reader and writer in a JVM of their own; one caller at a time."""

    def __init__(self, classes: Path, scratch: Path) -> None:
        self._scratch = scratch
        self._process = subprocess.Popen(
            command(classes, "ExchangeServer"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def schema(self, row_type: str) -> bytes:
        """Return the IPC schema message for a Flink type such as "ROW<a INT>"."""
        path = self._scratch / "schema"
        self._ask("schema", row_type, str(path))
        return path.read_bytes()

    def rows(self, row_type: str, message: bytes) -> str:
        """Return what Java reads in the message, as text."""
        return self._ask("rows", row_type, str(self._write(message)))

    def pack(self, row_type: str, message: bytes) -> list[tuple[str, str]]:
        """Return the binary form of each row in the message: packed, and as Flink makes it."""
        pairs = self._ask("pack", row_type, str(self._write(message))).split(";")
        return [(ours, flinks) for ours, _, flinks in (pair.partition("=") for pair in pairs)]

    def round_trip(
        self, row_type: str, message: bytes, *, batch_rows: int, slot_bytes: int
    ) -> list[bytes]:
        """Return the messages that Java writes with the rows it has read in `message`."""
        out = self._scratch / "out"
        answer = self._ask(
            "round_trip",
            row_type,
            str(self._write(message)),
            str(out),
            str(batch_rows),
            str(slot_bytes),
        )
        return [Path(f"{out}.{i}").read_bytes() for i in range(int(answer))]

    def close(self) -> None:
        """End the JVM, which ends with its stdin."""
        _pipe(self._process.stdin).close()
        _pipe(self._process.stdout).close()
        self._process.wait(_PATIENCE_S)

    def _write(self, message: bytes) -> Path:
        path = self._scratch / "in"
        path.write_bytes(message)
        return path

    def _ask(self, *fields: str) -> str:
        stdin = _pipe(self._process.stdin)
        stdin.write("\t".join(fields) + "\n")
        stdin.flush()
        answer = _pipe(self._process.stdout).readline()
        outcome, _, text = answer.rstrip("\n").partition(" ")
        assert outcome == "ok", answer
        return text


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path is not None, f"{name} of a JDK 17 is not on the PATH"
    return path


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
