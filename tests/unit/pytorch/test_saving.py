"""Files appear as a whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from headrace.pytorch.saving import save_atomically

pytestmark = pytest.mark.timeout(90)  # the first export imports torch's compiler


def test_a_module_is_saved_as_its_state_dict(tmp_path: Path) -> None:
    model = nn.BatchNorm1d(2)
    save_atomically(model, tmp_path / "deep" / "model.pt")
    state = torch.load(tmp_path / "deep" / "model.pt", weights_only=True)
    assert state.keys() == model.state_dict().keys()
    assert torch.equal(state["running_var"], torch.ones(2))


def test_a_view_is_saved_without_the_memory_behind_it(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    model.weight.data = torch.zeros(1_000_000)[:1].view(1, 1)
    save_atomically(model, tmp_path / "model.pt")
    assert (tmp_path / "model.pt").stat().st_size < 10_000


def test_a_failed_save_leaves_the_file_before_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_atomically({"x": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        save_atomically({"x": lambda: None}, path)
    assert torch.load(path, weights_only=True) == {"x": 1}
    assert [each.name for each in tmp_path.iterdir()] == ["model.pt"]


def test_an_exported_model_is_saved_whole_under_any_name(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    any_rows = {"input": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(model, (torch.zeros(2, 2),), dynamic_shapes=any_rows)
    save_atomically(program, tmp_path / "model.pt")
    x = torch.randn(5, 2)
    assert torch.equal(torch.export.load(tmp_path / "model.pt").module()(x), model(x))
