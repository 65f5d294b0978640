"""Java classes of the tests' own, compiled when they are needed."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from importlib import metadata
from pathlib import Path

__all__ = ["jar_of"]

_ROOT = Path(__file__).resolve().parents[2] / "java/src/test/java"


def jar_of(name: str, service: str, folder: Path) -> Path:
    """Compile one class into a jar in `folder` that offers it as a service, and return the jar.

    Args:
        name: Full name of the class.
        service: Full name of the interface that it implements for a `ServiceLoader`.
        folder: An empty one.
    """
    javac = shutil.which("javac")
    assert javac is not None
    flink = Path(str(metadata.distribution("apache-flink-libraries").locate_file("pyflink")))
    class_path = ":".join(str(jar) for jar in sorted((flink / "lib").glob("*.jar")))
    classes = folder / "classes"
    flags = ["--release", "17", "-proc:none", "-cp", class_path, "-d", str(classes)]
    source = _ROOT / f"{name.replace('.', '/')}.java"
    subprocess.run([javac, *flags, str(source)], check=True)
    jar = folder / "classes.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for path in sorted(classes.rglob("*.class")):
            archive.write(path, path.relative_to(classes))
        archive.writestr(f"META-INF/services/{service}", f"{name}\n")
    return jar
