"""Compiles java/ into src/headrace/_jars/headrace.jar, as hatch's build hook and as a program.

A wheel carries the jar; an editable install leaves it in the source tree; `make java` runs this
file by hand. The jar names the sources it was made from, so nothing is compiled when they have
not changed. Building twice gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).resolve().parent
JAR = ROOT / "src" / "headrace" / "_jars" / "headrace.jar"
_SOURCES = ROOT / "java" / "src" / "main" / "java"
_RESOURCES = ROOT / "java" / "src" / "main" / "resources"
_RELEASE = "17"
_WARNINGS = ("-Xlint:all", "-Werror")
_FLAGS = ("--release", _RELEASE, "-encoding", "UTF-8", "-g", "-proc:none", *_WARNINGS)
_FINGERPRINT = "META-INF/headrace-sources.sha256"
_MANIFEST = "Manifest-Version: 1.0\r\nAutomatic-Module-Name: org.headrace\r\n\r\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can hold

_NO_COMPILER = """\
No javac of Java 17 or later was found, and headrace.jar has to be compiled here.
Install a JDK, for example: apt-get install openjdk-17-jdk-headless
(or put the bin folder of one on PATH). Wheels of Headrace carry the jar: whoever installs one
needs only a Java runtime."""


class JavaBuildError(Exception):
    """The jar could not be built; the text says what to install or shows javac's output."""


def sources() -> list[Path]:
    """Return the Java sources, sorted by path."""
    return sorted(_SOURCES.rglob("*.java"))


def fingerprint() -> str:
    """Return a hash over the jar's sources, the compiler's flags and the version of Flink."""
    digest = hashlib.sha256("\0".join([*_FLAGS, _flink().version]).encode())
    texts = {path.relative_to(_SOURCES).as_posix(): path.read_bytes() for path in sources()}
    for name, content in {**texts, **_resources()}.items():
        digest.update(f"\0{name}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def built_fingerprint(jar: Path = JAR) -> str | None:
    """Return the hash that `jar` was built from, or None if there is no such jar."""
    try:
        with zipfile.ZipFile(jar) as opened:
            return opened.read(_FINGERPRINT).decode()
    except (FileNotFoundError, KeyError, zipfile.BadZipFile):
        return None


def build(jar: Path = JAR) -> bool:
    """Compile the sources into `jar` unless it is up to date. Blocks for some seconds.

    Args:
        jar: The file to write; it appears complete or not at all.

    Returns:
        True if something was compiled, False if the jar was up to date.

    Raises:
        JavaBuildError: There is no compiler, no Flink, or the compiler refused the sources.
    """
    wanted = fingerprint()
    if built_fingerprint(jar) == wanted:
        return False
    jar.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headrace-javac-") as scratch:
        classes = Path(scratch) / "classes"
        _compile(classes)
        half_done = jar.with_name(f"{jar.name}.{os.getpid()}.part")
        _write_jar(half_done, classes, wanted)
        half_done.replace(jar)
    return True


def _flink() -> metadata.Distribution:
    try:
        return metadata.distribution("apache-flink-libraries")
    except metadata.PackageNotFoundError as exc:
        msg = "The package apache-flink-libraries is not installed: `make setup` installs it."
        raise JavaBuildError(msg) from exc


def _classpath() -> str:
    home = Path(str(_flink().locate_file("pyflink")))
    jars = [
        *sorted((home / "lib").glob("*.jar")),
        *sorted((home / "opt").glob("flink-python-*.jar")),
    ]
    if not jars:
        msg = f"No jars of Flink under {home}: install apache-flink-libraries again."
        raise JavaBuildError(msg)
    return ":".join(map(str, jars))


def _compile(classes: Path) -> None:
    javac = shutil.which("javac")
    if javac is None:
        raise JavaBuildError(_NO_COMPILER)
    command = [javac, *_FLAGS, "-cp", _classpath(), "-d", str(classes), *map(str, sources())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    output = done.stdout + done.stderr
    if f"release version {_RELEASE} not supported" in output:
        msg = f"{_NO_COMPILER}\n{javac} is older."
        raise JavaBuildError(msg)
    msg = f"javac refused the sources under java/:\n{output}"
    raise JavaBuildError(msg)


def _resources() -> dict[str, bytes]:
    """Return what goes into the jar as it is, by its name there."""
    paths = sorted(path for path in _RESOURCES.rglob("*") if path.is_file())
    return {path.relative_to(_RESOURCES).as_posix(): path.read_bytes() for path in paths}


def _write_jar(jar: Path, classes: Path, wanted: str) -> None:
    contents = {"META-INF/MANIFEST.MF": _MANIFEST.encode(), _FINGERPRINT: wanted.encode()}
    contents.update(_resources())
    for path in sorted(classes.rglob("*.class")):
        contents[path.relative_to(classes).as_posix()] = path.read_bytes()
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            opened.writestr(entry, content)


class JavaBuildHook(BuildHookInterface[Any]):
    """Builds the jar before hatch collects the files of a wheel or of an editable install."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the jar; a source distribution needs none."""
        if self.target_name == "wheel":
            build()
            build_data["pure_python"] = True


def main() -> int:
    """Build the jar and say so. Returns the exit code."""
    try:
        compiled = build()
    except JavaBuildError as exc:
        print(exc, file=sys.stderr)
        return 1
    print(f"{JAR.relative_to(ROOT)}: {'compiled' if compiled else 'up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
