"""The build hook that makes headrace.jar."""

from __future__ import annotations

import importlib.util
import shutil
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]

GREETER = """
package org.headrace;

import org.apache.flink.api.common.functions.MapFunction;

public final class Greeter implements MapFunction<String, String> {
    private static final long serialVersionUID = 1L;

    @Override
    public String map(String name) {
        return "Hello, " + name;
    }
}
"""


@pytest.fixture
def hook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """hatch_build.py with one small source and one resource in place of the project's."""
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sources = tmp_path / "java"
    (sources / "org" / "headrace").mkdir(parents=True)
    (sources / "org" / "headrace" / "Greeter.java").write_text(GREETER)
    services = tmp_path / "resources" / "META-INF" / "services"
    services.mkdir(parents=True)
    (services / "java.lang.Greeter").write_text("org.headrace.Greeter\n")
    monkeypatch.setattr(module, "_SOURCES", sources)
    monkeypatch.setattr(module, "_RESOURCES", tmp_path / "resources")
    return module


def change(hook: ModuleType, old: str, new: str) -> None:
    source = hook.sources()[0]
    source.write_text(source.read_text().replace(old, new))


def test_building_twice_gives_the_same_bytes(hook: ModuleType, tmp_path: Path) -> None:
    first, second = tmp_path / "1.jar", tmp_path / "2.jar"
    assert hook.build(first)
    assert hook.build(second)
    assert first.read_bytes() == second.read_bytes()
    assert "org/headrace/Greeter.class" in zipfile.ZipFile(first).namelist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1.jar",
        "2.jar",
        "java",
        "resources",
    ]


def test_nothing_is_compiled_until_a_source_changes(hook: ModuleType, tmp_path: Path) -> None:
    jar = tmp_path / "headrace.jar"
    assert hook.build(jar)
    assert not hook.build(jar)
    change(hook, "Hello", "Good morning")
    assert hook.build(jar)


def test_resources_are_in_the_jar_as_they_are_and_make_it_anew(
    hook: ModuleType, tmp_path: Path
) -> None:
    jar = tmp_path / "headrace.jar"
    hook.build(jar)
    name = "META-INF/services/java.lang.Greeter"
    assert zipfile.ZipFile(jar).read(name) == b"org.headrace.Greeter\n"
    (tmp_path / "resources" / name).write_text("org.headrace.Other\n")
    assert hook.build(jar)
    assert zipfile.ZipFile(jar).read(name) == b"org.headrace.Other\n"


def test_without_javac_the_error_says_what_to_install(
    hook: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(hook.JavaBuildError, match="apt-get install openjdk-17-jdk-headless"):
        hook.build(tmp_path / "headrace.jar")


def test_a_warning_of_javac_is_an_error_that_shows_it_and_leaves_the_jar_alone(
    hook: ModuleType, tmp_path: Path
) -> None:
    jar = tmp_path / "headrace.jar"
    hook.build(jar)
    before = jar.read_bytes()
    change(hook, "    private static final long serialVersionUID = 1L;\n", "")
    with pytest.raises(hook.JavaBuildError, match="serialVersionUID"):
        hook.build(jar)
    assert jar.read_bytes() == before
