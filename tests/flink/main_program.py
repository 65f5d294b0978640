"""A user's program: the functions and classes of `__main__`, and of notebook cells, in one job.

A cell is compiled without a file and run in `__main__`, which is all that a notebook's kernel
does to it; what travels depends on that only, so no kernel is needed here. Prints one JSON
object.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import cloudpickle

import headrace
from headrace.config import RoleConfig
from headrace.errors import JobFailedError

FACTOR = 10
CELLS = [
    """
class Scale:
    def __init__(self, by):
        self.by = by
""",
    """
import math

def root(x):
    return math.sqrt(x)
""",
    """
def in_a_cell(ctx):
    assert type(scale) is Scale
    ctx.report(value=root(scale.by))

scale = Scale(49)
""",
    """
def fails_in_a_cell(ctx):
    raise KeyError(f"scale {scale.by}")
""",
]


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def train(self, ctx: Any) -> None:
        ctx.report(value=self.x * FACTOR)


def plain(ctx: Any) -> None:
    ctx.report(value=twice(FACTOR))


def twice(x: int) -> int:
    return 2 * x


def shift(by: int, ctx: Any) -> None:
    ctx.report(value=by + FACTOR)


def closure(point: Point) -> Callable[[Any], None]:
    def entry(ctx: Any) -> None:
        assert isinstance(point, Point)
        ctx.report(value=point.x)

    return entry


def sends(ctx: Any) -> None:
    ctx.publish("point", cloudpickle.dumps(Point(6)).hex())


def receives(ctx: Any) -> None:
    point = cloudpickle.loads(bytes.fromhex(ctx.lookup("point", 60)))
    assert type(point) is Point
    ctx.report(value=point.x)


def run(name: str, entries: dict[str, Callable[[Any], object]]) -> dict[str, float]:
    cluster = headrace.Cluster(name=name)
    cluster.add_am_role(headrace.AMConfig(max_restarts=0))
    for role, entry in entries.items():
        cluster.add_role(role, RoleConfig(entry=entry))
    nodes = cluster.submit().wait(timeout_s=100, show_progress=False).status.nodes
    return {role: nodes[f"{role}-0"].report.get("value", 0.0) for role in entries}


def main() -> None:
    for number, cell in enumerate(CELLS):
        exec(compile(cell, f"<cell {number}>", "exec"), globals())
    values = run(
        "main",
        {
            "plain": plain,
            "closure": closure(Point(3)),
            "method": Point(4).train,
            "partial": functools.partial(shift, 5),
            "lambda": lambda ctx: ctx.report(value=twice(4)),
            "sends": sends,
            "receives": receives,
            "cell": globals()["in_a_cell"],
        },
    )
    try:
        run("fails", {"cell": globals()["fails_in_a_cell"]})
    except JobFailedError as exc:
        cause = exc.cause
    sys.stdout.write(json.dumps({"values": values, "cause": cause}) + "\n")


if __name__ == "__main__":
    main()
