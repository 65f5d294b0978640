"""Compiles the Java classes beside this file into a jar, for the scripts that need a probe."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

__all__ = ["build_probe_jar"]

_SOURCES = Path(__file__).parent / "java"


def build_probe_jar(folder: Path) -> Path:
    """Compile `benchmarks/java` into `folder`; return the jar. Blocks for some seconds.

    Raises:
        FileNotFoundError: There is no javac.
        subprocess.CalledProcessError: It refused a source.
    """
    javac = shutil.which("javac")
    if javac is None:
        msg = "no javac on the PATH: install a JDK 17"
        raise FileNotFoundError(msg)
    flink = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    class_path = ":".join(str(jar) for jar in sorted((flink / "lib").glob("*.jar")))
    classes = folder / "classes"
    sources = [str(source) for source in sorted(_SOURCES.glob("*.java"))]
    flags = ["--release", "17", "-proc:none", "-cp", class_path, "-d", str(classes)]
    subprocess.run([javac, *flags, *sources], check=True)
    jar = folder / "headrace-benchmarks.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, path.relative_to(classes))
    return jar
