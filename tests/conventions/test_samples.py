"""Parts of programs in the documents are code, and what they name of Headrace is there.

Whole programs are run: tests/flink/test_readme.py.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import headrace
import headrace.pytorch
import headrace.tensorflow
from headrace.estimator.plan import FitJob, FitPlan
from headrace.operator.handle import JobHandle
from headrace.operator.training import TrainingPlan
from tests.samples import DOCUMENTS, samples

PARTS = [
    pytest.param(part, id=f"{document}-{number}")
    for document in DOCUMENTS
    for number, part in enumerate(samples(document, "py"))
]
KINDS: dict[str, tuple[type, ...]] = {
    "ctx": (headrace.pytorch.TorchContext, headrace.tensorflow.TFContext),
    "job": (JobHandle, FitJob),
    "plan": (TrainingPlan, FitPlan),
    "estimator": (headrace.pytorch.TorchEstimator, headrace.tensorflow.KerasEstimator),
}
"""What these names are in every sample."""
MODULES = (headrace, headrace.pytorch, headrace.tensorflow)
ANYTHING = object()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_a_program_names_what_there_is(part: str) -> None:
    assert [*problems(part)] == []


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("import headrace.keras", "headrace.keras"),
        ("from headrace.pytorch import KerasModel", "headrace.pytorch.KerasModel"),
        ("headrace.pytorch.fit(rows).submit()", "headrace.pytorch.fit"),
        ("headrace.pytorch.train(rows, f, worker=2)", "headrace.pytorch.train(worker=)"),
        ("TorchModel('model.pt', Model, paths=2)", "TorchModel(paths=)"),
        ("for e in ctx.pass_es(3): ...", "ctx.pass_es"),
        ("ctx.batches(row=3, epochs=2)", "ctx.batches(row=)"),
        ("job.stop('saved', drains=False)", "job.stop(drains=)"),
    ],
)
def test_what_is_not_there_is_found(part: str, problem: str) -> None:
    assert [*problems(part)] == [problem]


def problems(part: str) -> Iterator[str]:
    """Say which names of Headrace are not there, and which keywords nothing takes."""
    for node in ast.walk(ast.parse(part)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names if lead_to(each.name) == [])
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{each.name}" for each in node.names]
            yield from (each for each in names if lead_to(each) == [])
        elif isinstance(node, ast.Attribute):
            chain = chain_of(node)
            if lead_to(chain) == [] and lead_to(chain.rpartition(".")[0]):
                yield chain
        elif isinstance(node, ast.Call):
            chain = chain_of(node.func)
            takers = lead_to(chain) or []
            given = {each.arg for each in node.keywords if each.arg is not None}
            refused = [refused_by(each, given) for each in takers]
            yield from (
                f"{chain}({name}=)" for name in sorted(min(refused, key=len, default=[]))
            )


def chain_of(node: ast.AST) -> str:
    """Return `a.b.c` as text; an empty one if it is no such thing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := chain_of(node.value)):
        return f"{before}.{node.attr}"
    return ""


def lead_to(chain: str) -> list[Any] | None:
    """Return what `a.b.c` may be; None if it has nothing to do with Headrace."""
    first, *names = chain.split(".")
    exported = [getattr(each, first) for each in MODULES if first in each.__all__]
    if first not in {"headrace", *KINDS} and not exported:
        return None
    at = [headrace] if first == "headrace" else [*KINDS.get(first, exported)]
    for name in names:
        at = [member for each in at for member in members(each, name)]
    return at


def members(of: Any, name: str) -> list[Any]:
    if of is ANYTHING:
        return [ANYTHING]
    if isinstance(of, ModuleType) and not hasattr(of, name):
        try:
            return [importlib.import_module(f"{of.__name__}.{name}")]
        except ModuleNotFoundError:
            return []
    if hasattr(of, name):
        member = getattr(of, name)
        return [member if callable(member) or isinstance(member, ModuleType) else ANYTHING]
    kinds = of.__mro__[:-1] if isinstance(of, type) else ()
    return [ANYTHING] if any(sets(each, name) for each in kinds) else []


def sets(kind: type, name: str) -> bool:
    """Whether instances of the class have the attribute, by its `__init__` or declared."""
    code = getattr(vars(kind).get("__init__"), "__code__", None)
    is_set = code is not None and name in code.co_names
    return is_set or name in vars(kind).get("__annotations__", {})


def refused_by(callee: Any, keywords: set[str]) -> set[str]:
    """Return those that it does not take."""
    if callee is ANYTHING:
        return set()
    parameters = inspect.signature(callee).parameters.values()
    is_open = any(each.kind is each.VAR_KEYWORD for each in parameters)
    return set() if is_open else keywords - {each.name for each in parameters}
