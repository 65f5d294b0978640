"""An optimizer is restored with what fits its parameters; else all that differs is listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headrace.errors import PlanError
from headrace.exchange import Barrier, End
from headrace.pytorch import TorchContext
from headrace.role.taking import take_state

from .test_checkpointed import batches, restored_from, run

Make = Callable[[Any], torch.optim.Optimizer]


def stepped(make: Make, *models: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer that has made a step on all parameters."""
    optimizer = make(parameters_of(*models))

    def loss() -> Any:
        optimizer.zero_grad()
        value = sum((each**2).sum() for model in models for each in model.parameters())
        assert isinstance(value, torch.Tensor)
        value.backward()
        return value

    optimizer.step(loss)
    return optimizer


def parameters_of(*models: nn.Module) -> list[Any]:
    """Return a group for each model."""
    return [{"params": list(model.parameters())} for model in models]


def adam(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups)


def refused(optimizer: torch.optim.Optimizer, kept: Any) -> list[str]:
    with pytest.raises(PlanError) as caught:
        take_state("optimizer", optimizer, kept)
    return str(caught.value).splitlines()


def test_moments_of_other_shapes_are_refused_and_listed() -> None:
    """Torch takes them: they would fail, or be broadcast, at the first step."""
    kept = stepped(adam, nn.Linear(1, 3)).state_dict()
    optimizer = adam(parameters_of(nn.Linear(4, 3)))
    first, *rest = refused(optimizer, kept)
    assert first == (
        "ctx.checkpointed: 'optimizer' (a Adam) does not take its state from the restored "
        "checkpoint: ValueError: its entries are not of the shapes of the parameters"
    )
    assert rest == [
        "  state.0.exp_avg: shape (3, 1) in the checkpoint, (3, 4) here",
        "  state.0.exp_avg_sq: shape (3, 1) in the checkpoint, (3, 4) here",
    ]
    assert optimizer.state_dict()["state"] == {}


def test_other_groups_are_listed_with_what_is_in_them() -> None:
    kept = stepped(adam, nn.Linear(2, 3), nn.Linear(3, 1, bias=False)).state_dict()
    optimizer = adam(parameters_of(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))))
    assert refused(optimizer, kept)[1:] == [
        "  unexpected in the checkpoint: param_groups[1], 1 parameter",
        "  param_groups[0]: 2 parameters in the checkpoint, 4 parameters here",
        "  state.0.exp_avg: shape (3, 2) in the checkpoint, (3, 4) here",
        "  state.0.exp_avg_sq: shape (3, 2) in the checkpoint, (3, 4) here",
    ]
    one_group = stepped(adam, nn.Linear(2, 3)).state_dict()
    more = adam(parameters_of(nn.Linear(2, 3), nn.Linear(3, 1)))
    assert refused(more, one_group)[1:] == [
        "  missing in the checkpoint: param_groups[1], 2 parameters"
    ]


@pytest.mark.parametrize(
    ("momentum", "told"),
    [
        (0.0, "ValueError: it is the state of another kind of optimizer"),
        (0.9, "KeyError: 'step'"),
    ],
)
def test_the_state_of_another_kind_of_optimizer_is_refused_with_its_settings(
    momentum: float, told: str
) -> None:
    """Torch itself takes some, to fail at the first step, and stumbles over others."""
    kept = stepped(lambda groups: torch.optim.SGD(groups, momentum=momentum), nn.Linear(2, 1))
    optimizer = torch.optim.Adam(nn.Linear(2, 1).parameters())
    first, *rest = refused(optimizer, kept.state_dict())
    assert first.endswith(told)
    assert rest == [
        "  missing in the checkpoint: param_groups[0].amsgrad",
        "  missing in the checkpoint: param_groups[0].betas",
        "  missing in the checkpoint: param_groups[0].capturable",
        "  missing in the checkpoint: param_groups[0].decoupled_weight_decay",
        "  missing in the checkpoint: param_groups[0].eps",
        "  unexpected in the checkpoint: param_groups[0].dampening",
        "  unexpected in the checkpoint: param_groups[0].momentum",
        "  unexpected in the checkpoint: param_groups[0].nesterov",
    ]


MAKERS: list[Make] = [
    adam,
    torch.optim.Adadelta,
    torch.optim.Adafactor,
    torch.optim.Adagrad,
    torch.optim.Adamax,
    torch.optim.AdamW,
    torch.optim.ASGD,
    torch.optim.NAdam,
    torch.optim.RAdam,
    torch.optim.Rprop,
    torch.optim.SGD,
    lambda groups: torch.optim.Adam(groups, amsgrad=True),
    lambda groups: torch.optim.RMSprop(groups, momentum=0.9, centered=True),
    lambda groups: torch.optim.SGD(groups, momentum=0.9),
    lambda groups: torch.optim.LBFGS(groups[0]["params"], max_iter=2),
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_optimizer_of_torchs_takes_what_fits_and_only_that(make: Make) -> None:
    kept = stepped(make, nn.Linear(4, 3)).state_dict()
    taken = make(parameters_of(nn.Linear(4, 3)))
    take_state("optimizer", taken, kept)
    assert taken.state_dict()["state"].keys() == kept["state"].keys()
    has_moments = any(
        isinstance(each, torch.Tensor) and each.ndim
        for entries in kept["state"].values()
        for each in entries.values()
    )
    if has_moments:
        lines = refused(make(parameters_of(nn.Linear(5, 3))), kept)
        assert [line.split(":")[1].split()[0] for line in lines[1:]] == ["shape"] * (
            len(lines) - 1
        )
        assert len(lines) > 1


class Projected(torch.optim.Optimizer):
    """Keeps moments of a lower rank than its parameters have."""

    def __init__(self, groups: Any) -> None:
        super().__init__(groups, {"lr": 1.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        closure()
        for group in self.param_groups:
            for each in group["params"]:
                self.state[each]["exp_avg"] = torch.zeros(1)


def test_optimizers_of_others_keep_what_they_like() -> None:
    kept = stepped(Projected, nn.Linear(4, 3)).state_dict()
    taken = Projected(parameters_of(nn.Linear(4, 3)))
    taken.defaults["new"] = 1
    take_state("optimizer", taken, kept)
    assert [each["exp_avg"].shape for each in taken.state.values()] == [(1,), (1,)]


def test_a_program_that_adds_a_schedule_takes_the_optimizer_of_one_without() -> None:
    kept = stepped(adam, nn.Linear(4, 3)).state_dict()
    optimizer = adam(parameters_of(nn.Linear(4, 3)))
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    take_state("optimizer", optimizer, kept)
    with_schedule = optimizer.state_dict()
    with_schedule["param_groups"][0]["initial_lr"] = 1.0
    take_state("optimizer", adam(parameters_of(nn.Linear(4, 3))), with_schedule)


def test_a_job_with_a_smaller_layer_is_refused_before_its_first_step(tmp_path: Path) -> None:
    def training(width: int) -> Callable[[TorchContext], None]:
        def train(ctx: TorchContext) -> None:
            model = nn.Linear(1, width)
            optimizer = torch.optim.Adam(model.parameters())
            ctx.checkpointed(optimizer=optimizer)
            for batch in ctx.batches(rows=3):
                loss: Any = model(batch["x"].unsqueeze(1)).mean()
                loss.backward()
                optimizer.step()

        return train

    feed = run(tmp_path, training(1), [*batches(0, 1), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    with pytest.raises(PlanError) as caught:
        run(tmp_path, training(2), [*batches(1, 2), End()], **restored)
    assert str(caught.value).splitlines()[1:] == [
        f"  state.{number}.{name}: shape {before} in the checkpoint, {here} here"
        for number, before, here in ((0, "(1, 1)", "(2, 1)"), (1, "(1,)", "(2,)"))
        for name in ("exp_avg", "exp_avg_sq")
    ]
