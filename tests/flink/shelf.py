"""Teaches the JVM of the tests a file system that Python cannot read: `shelf:///path`."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import add_jars_to_context_class_loader

__all__ = ["add_shelf"]

_SOURCE = (
    Path(__file__)
    .resolve()
    .parents[2]
    .joinpath("java/src/test/java/org/headrace/process/ShelfFileSystemFactory.java")
)
_SERVICE = "META-INF/services/org.apache.flink.core.fs.FileSystemFactory"


def add_shelf(folder: Path) -> None:
    """Register the file system, which is compiled into `folder`, with Flink. It stays."""
    add_jars_to_context_class_loader([_jar(folder).as_uri()])
    jvm = get_gateway().jvm
    file_systems = jvm.org.apache.flink.core.fs.FileSystem
    configuration = jvm.org.apache.flink.configuration.Configuration()
    file_systems.initialize(configuration, None)


def _jar(folder: Path) -> Path:
    javac = shutil.which("javac")
    assert javac is not None
    flink = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    class_path = ":".join(str(jar) for jar in sorted((flink / "lib").glob("*.jar")))
    classes = folder / "classes"
    flags = ["--release", "17", "-proc:none", "-cp", class_path, "-d", str(classes)]
    subprocess.run([javac, *flags, str(_SOURCE)], check=True)
    jar = folder / "shelf.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, path.relative_to(classes))
        archive.writestr(_SERVICE, "org.headrace.process.ShelfFileSystemFactory\n")
    return jar
