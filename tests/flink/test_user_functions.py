"""Where entry functions come from: all that can be called, and every way to ship it."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
from pyflink.table import StreamTableEnvironment

import headrace
from headrace._environ import copy_environment
from headrace.config import AMConfig, RoleConfig
from headrace.operator import Cluster, JobResult

cloudpickle.register_pickle_by_value(sys.modules[__name__])

_SHAPES = """
import pickle

from shapes_of_{name}_units import UNIT


class Point:
    def __init__(self, x):
        self.x = x * UNIT


def train(ctx):
    if ctx.index == 0:
        ctx.publish("point", pickle.dumps(Point(20)).hex())
    point = pickle.loads(bytes.fromhex(ctx.lookup("point", 60)))
    assert type(point) is Point
    ctx.report(x=point.x)
"""


def reports(ctx: Any, value: int) -> None:
    ctx.report(value=value)


def doubled(entry: Callable[[Any], int]) -> Callable[[Any], None]:
    @functools.wraps(entry)
    def wrapper(ctx: Any) -> None:
        ctx.report(value=2 * entry(ctx))

    return wrapper


class Model:
    base = 100

    def __init__(self, value: int) -> None:
        self.value = value

    def __call__(self, ctx: Any) -> None:
        reports(ctx, self.value)

    def train(self, ctx: Any) -> None:
        reports(ctx, self.value)

    @classmethod
    def train_class(cls, ctx: Any) -> None:
        reports(ctx, cls.base)

    @staticmethod
    def train_alone(ctx: Any) -> None:
        reports(ctx, 200)


def test_everything_that_can_be_called_is_an_entry(t_env: StreamTableEnvironment) -> None:
    captured = 2

    def closure(ctx: Any) -> None:
        reports(ctx, captured)

    @doubled
    def decorated(ctx: Any) -> int:
        return captured + 1

    entries: dict[str, tuple[Callable[[Any], object], float]] = {
        "lambda": (lambda ctx: reports(ctx, 1), 1),
        "closure": (closure, 2),
        "method": (Model(3).train, 3),
        "partial": (functools.partial(reports, value=4), 4),
        "object": (Model(5), 5),
        "decorated": (decorated, 6),
        "class_method": (Model.train_class, 100),
        "static_method": (Model.train_alone, 200),
    }
    cluster = Cluster(t_env, name="callables")
    cluster.add_am_role(AMConfig(max_restarts=0))
    for role, (entry, _) in entries.items():
        cluster.add_role(role, RoleConfig(entry=entry))
    nodes = cluster.submit().wait(timeout_s=100, show_progress=False).status.nodes
    assert {role: nodes[f"{role}-0"].report["value"] for role in entries} == {
        role: value for role, (_, value) in entries.items()
    }


def test_functions_and_classes_of_main_and_of_notebook_cells_keep_their_identity() -> None:
    program = Path(__file__).with_name("main_program.py")
    source = str(Path(headrace.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(program)],
        env={**copy_environment(), "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["values"] == {
        "plain": 20,
        "closure": 3,
        "method": 40,
        "partial": 15,
        "lambda": 8,
        "sends": 0,
        "receives": 6,
        "cell": 7,
    }
    assert "cell-0: KeyError: 'scale 49'" in printed["cause"]
    assert 'File "<cell 3>", line 3, in fails_in_a_cell' in printed["cause"]


def test_a_shipped_module_brings_its_function_and_its_classes_keep_their_identity(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    name = "file"
    units = tmp_path / "units" / f"shapes_of_{name}_units.py"
    units.parent.mkdir()
    units.write_text("UNIT = 2\n")
    path = tmp_path / f"shapes_of_{name}.py"
    path.write_text(_SHAPES.format(name=name))
    load(units)
    shapes: Any = load(path)
    t_env.add_python_file(str(path))
    t_env.add_python_file(str(units.parent))
    point = shapes.Point(1)
    kept = tmp_path / "kept.pkl"

    def entry(ctx: Any) -> None:
        import shapes_of_file as again  # type: ignore[import-not-found]

        assert type(point) is again.Point
        assert isinstance(again.Point(2), shapes.Point)
        kept.write_bytes(pickle.dumps(again.Point(3)))
        ctx.report(x=point.x)

    cluster = Cluster(t_env, name="shipped")
    cluster.add_am_role(AMConfig(max_restarts=0))
    cluster.add_role("function", RoleConfig(entry=shapes.train, parallelism=2))
    cluster.add_role("closure", RoleConfig(entry=entry))
    nodes = cluster.submit().wait(timeout_s=100, show_progress=False).status.nodes
    assert {name: node.report for name, node in nodes.items()} == {
        "function-0": {"x": 40},
        "function-1": {"x": 40},
        "closure-0": {"x": 2},
    }
    back = pickle.loads(kept.read_bytes())
    assert type(back) is shapes.Point
    assert back.x == 6


def test_modules_come_from_requirements_and_archives_and_files_from_archives(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    build_wheel(wheels, "wheel_of_the_user", "ANSWER = 42\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("wheel-of-the-user==1.0\n")
    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("inner/module_of_the_archive.py", "ANSWER = 43\n")
        packed.writestr("data.txt", "from the archive")
    t_env.set_python_requirements(str(requirements), str(wheels))
    t_env.add_python_archive(str(archive), "pack")

    def entry(ctx: Any) -> None:
        import wheel_of_the_user  # type: ignore[import-not-found]
        from pack.inner import module_of_the_archive  # type: ignore[import-not-found]

        assert Path("pack/data.txt").read_text() == "from the archive"
        Path("own.txt").write_text("the working directory is its own")
        ctx.report(wheel=wheel_of_the_user.ANSWER, archive=module_of_the_archive.ANSWER)

    status = run_alone(t_env, entry).status
    assert status.nodes["worker-0"].report == {"wheel": 42, "archive": 43}


def test_another_interpreter_runs_master_node_and_function(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    interpreter = make_environment(tmp_path / "env")
    found = tmp_path / "found.json"

    def entry(ctx: Any) -> None:
        import only_in_this_environment  # type: ignore[import-not-found]

        commands = [
            (Path("/proc") / str(pid) / "cmdline").read_bytes().split(b"\0")[0].decode()
            for pid in (os.getpid(), os.getppid())
        ]
        found.write_text(json.dumps([sys.prefix, *commands]))
        ctx.report(answer=only_in_this_environment.ANSWER)

    t_env.get_config().set_python_executable(str(interpreter))
    assert run_alone(t_env, entry).status.nodes["worker-0"].report == {"answer": 44}
    assert json.loads(found.read_text()) == [
        str(tmp_path / "env"),
        str(interpreter),
        str(interpreter),
    ]


def run_alone(t_env: StreamTableEnvironment, entry: Callable[[Any], object]) -> JobResult:
    """Run `entry` as the one worker of a job."""
    cluster = Cluster(t_env, name="alone")
    cluster.add_am_role(AMConfig(max_restarts=0))
    cluster.add_role("worker", RoleConfig(entry=entry))
    return cluster.submit().wait(timeout_s=110, show_progress=False)


def load(path: Path) -> ModuleType:
    """Import a file that is not on this program's path, so that only shipping brings it."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def build_wheel(folder: Path, name: str, text: str) -> None:
    """Write a wheel with one module; no build tool and no network is needed."""
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(f"{each},,\n" for each in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for each, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(each, content)


def make_environment(folder: Path) -> Path:
    """Make a virtual environment that sees the packages of this one; return its interpreter."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(Path(sys.executable).resolve())
    home = Path(sys.executable).resolve().parent
    (folder / "pyvenv.cfg").write_text(f"home = {home}\n")
    packages = Path(sysconfig.get_path("purelib", "posix_prefix", {"base": str(folder)}))
    packages.mkdir(parents=True)
    seen = [sysconfig.get_path("purelib"), str(Path(headrace.__file__).parents[1])]
    (packages / "seen.pth").write_text("\n".join(seen) + "\n")
    (packages / "only_in_this_environment.py").write_text("ANSWER = 44\n")
    return python
