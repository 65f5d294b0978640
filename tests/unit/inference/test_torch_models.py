"""Models of PyTorch from every kind of file score as they do when they are called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace.errors import ConfigError
from headrace.pytorch import TorchModel

from .scoring import score

NAMES = [f"x{n}" for n in range(4)]
FLOAT = pa.float32()
BATCH = 64
pytestmark = pytest.mark.timeout(90)  # the first export imports torch's compiler


class Net(nn.Module):
    """Two layers, and dropout that must be off."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, 8)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.drop(torch.relu(self.hidden(x))))
        return out


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)

    def forward(self, word: torch.Tensor, scale: torch.Tensor) -> dict[str, torch.Tensor]:
        vector = self.words(word) * scale[:, None]
        return {"vector": vector, "length": vector.sum(1)}


def rows(count: int = 200) -> pa.Table:
    random = np.random.default_rng(3)
    return pa.table({name: random.random(count, np.float32) for name in NAMES})


def direct(net: nn.Module, table: pa.Table) -> list[float]:
    """Call the model on the same batches."""
    matrix = torch.from_numpy(np.stack([table[name].to_numpy() for name in NAMES], 1))
    with torch.inference_mode():
        parts = [net(matrix[n : n + BATCH]) for n in range(0, len(matrix), BATCH)]
    values: list[float] = torch.cat(parts)[:, 0].tolist()
    return values


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(1)
    return Net().eval()


def saved(net: nn.Module, kind: str, folder: Path) -> TorchModel:
    path = folder / "model"
    example = (torch.zeros(2, 4),)
    if kind == "export":
        shapes = {"x": {0: torch.export.Dim.DYNAMIC}}
        torch.export.save(
            torch.export.export(net, example, dynamic_shapes=shapes), path.with_suffix(".pt2")
        )
        return TorchModel(path.with_suffix(".pt2"))
    if kind == "script":
        torch.jit.save(torch.jit.trace(net, example), str(path))
        return TorchModel(str(path))
    torch.save(net.state_dict(), path)
    return TorchModel(path, Net)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["export", "script", "state"])
def test_scores_are_those_of_the_model_called_on_the_same_batches(
    net: nn.Module, kind: str, tmp_path: Path
) -> None:
    model = saved(net, kind, tmp_path)
    scored = score(
        rows(), model, {"y": FLOAT}, inputs=NAMES, batch_rows=BATCH, receive_rows=BATCH
    )
    assert scored["y"].to_pylist() == direct(net, rows())


def test_inputs_and_outputs_go_by_name(tmp_path: Path) -> None:
    net = TwoInputs()
    torch.save(net.state_dict(), tmp_path / "model")
    table = pa.table({"word": [3, 1, 2], "scale": np.array([1, 2, 3], np.float32)})
    scored = score(
        table,
        TorchModel(tmp_path / "model", TwoInputs),
        {"length": FLOAT, "vector": pa.list_(FLOAT)},
        inputs={"scale": "scale", "word": "word"},
    )
    with torch.inference_mode():
        expected = net(torch.tensor([3, 1, 2]), torch.tensor([1.0, 2.0, 3.0]))
    assert scored["vector"].to_pylist() == expected["vector"].tolist()
    assert scored["length"].to_pylist() == expected["length"].tolist()


class InPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mul_(2.0)


def test_a_layer_that_works_in_place_changes_no_column_that_passes_by(tmp_path: Path) -> None:
    torch.save(InPlace().state_dict(), tmp_path / "model")
    model = TorchModel(tmp_path / "model", InPlace)
    table = pa.table({"x": np.array([1, 2], np.float32)})
    scored = score(table, model, {"y": FLOAT}, inputs="x")
    assert scored.to_pydict() == {"x": [1.0, 2.0], "y": [2.0, 4.0]}


def test_an_exported_model_names_its_inputs(tmp_path: Path) -> None:
    rows_ = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        TwoInputs(),
        (torch.tensor([1, 2]),),
        {"scale": torch.ones(2)},
        dynamic_shapes={"word": {0: rows_}, "scale": {0: rows_}},
    )
    torch.export.save(program, tmp_path / "model.pt2")
    model = TorchModel(tmp_path / "model.pt2")
    table = pa.table({"scale": np.array([2.0], np.float64), "word": [3]})
    outputs = {"vector": pa.list_(FLOAT)}
    assert score(table, model, outputs)["vector"].to_pylist()[0] == pytest.approx(
        (program.module()(torch.tensor([3, 3]), scale=torch.tensor([2.0, 2.0])))["vector"][
            0
        ].tolist()
    )
    table = pa.table({"factor": [2.0], "word": ["three"]})
    with pytest.raises(ConfigError, match=r"takes \(word: int64 \(rows\); scale: float32"):
        score(table, model, outputs)
    with pytest.raises(ConfigError, match=r"takes word: int64 .* gives word: str"):
        score(table, model, outputs, inputs={"word": "word", "scale": "factor"})


@pytest.mark.parametrize(
    ("kind", "inputs", "told"),
    [
        ("export", NAMES[:3], r"takes x: float32 \(rows, 4\), and .* gives .*\(rows, 3\)"),
        (
            "state",
            NAMES[:3],
            r"called with torch.float32 \(2, 3\) it raised RuntimeError",
        ),
        ("state", {"z": NAMES}, r"Net.forward\(x: .*is given 0 arguments, z"),
        ("state", None, "does not name its inputs, and the rows have the columns x0, x1"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_row(
    net: nn.Module, kind: str, inputs: Any, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){told}"):
        score(rows(0), saved(net, kind, tmp_path), {"y": FLOAT}, inputs=inputs)


def test_an_output_that_does_not_fit_is_told_before_the_first_row(
    net: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tried on 2 rows of zeros.*'y' holds float"):
        score(rows(0), saved(net, "state", tmp_path), {"y": pa.string()}, inputs=NAMES)


def test_a_model_exported_for_a_fixed_number_of_rows_is_refused(
    net: nn.Module, tmp_path: Path
) -> None:
    torch.export.save(torch.export.export(net, (torch.zeros(2, 4),)), tmp_path / "m.pt2")
    with pytest.raises(ConfigError, match=r"exactly 2 rows.*dynamic_shapes"):
        score(rows(), TorchModel(tmp_path / "m.pt2"), {"y": FLOAT}, inputs=NAMES)


@pytest.mark.parametrize(
    ("kind", "module", "told"),
    [
        ("missing", None, "There is no model at"),
        ("text", None, "no model that torch.save"),
        ("state", None, "is no whole model but a state dict"),
        ("export", Net, "is a whole model: leave out"),
        ("state", lambda: Net(5), r"(?s)does not fit Net.*size mismatch for hidden.weight"),
        ("state", TwoInputs, r"(?s)does not fit TwoInputs.*Missing key.*Unexpected key"),
    ],
)
def test_a_file_that_is_no_such_model_is_told(
    net: nn.Module, kind: str, module: Any, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    if kind == "text":
        path.write_text("no model")
    elif kind != "missing":
        path = Path(saved(net, kind, tmp_path).path)
    with pytest.raises(ConfigError, match=told):
        score(rows(), TorchModel(path, module), {"y": FLOAT}, inputs=NAMES)


def test_a_worker_computes_with_the_threads_it_is_given(net: nn.Module, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    threads = before + 1
    model = saved(net, "state", tmp_path)
    try:
        score(rows(), model, {"y": FLOAT}, inputs=NAMES, threads=threads)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_relative_path_is_taken_from_where_the_job_is_planned(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(net, "state", tmp_path)
    monkeypatch.chdir(tmp_path)
    model = TorchModel("model", Net)
    monkeypatch.chdir("/")
    assert score(rows(3), model, {"y": FLOAT}, inputs=NAMES).num_rows == 3


def test_a_module_in_place_of_its_class_is_refused(net: nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"module=Net.* its class, not the module itself"):
        TorchModel("model", net)


def test_who_must_have_a_gpu_does_not_score_on_the_cpu(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setenv("HEADRACE_NEEDS_GPU", "1")
    with pytest.raises(ConfigError, match="finds no GPU here"):
        saved(net, "state", tmp_path).load(1)
