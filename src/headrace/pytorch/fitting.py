"""What every worker of a `TorchEstimator` does."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from headrace.errors import ConfigError, PlanError
from headrace.estimator import (
    Course,
    EarlyStopping,
    Example,
    ExamplePlan,
    FitRecord,
    FitState,
    Sums,
    Verdict,
    require_finite,
)
from headrace.inference import Inputs, Source
from headrace.pytorch.context import TorchContext
from headrace.pytorch.models import LoadedModule

__all__ = ["MODEL_FILE", "Fitting", "ScheduleEvery"]

MODEL_FILE = "model.pt"
ScheduleEvery: TypeAlias = Literal["epoch", "step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """The training function of an estimator: its parameters; travels to the workers.

    Attributes: those of `TorchEstimator`, and `record`, which is written beside the model.
    """

    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], torch.Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    features: Inputs
    label: Source
    batch_rows: int
    schedule: Callable[[torch.optim.Optimizer], Any] | None
    schedule_every: ScheduleEvery
    metrics: Mapping[str, Callable[[Any, Any], Any]]
    early_stopping: EarlyStopping | None
    seed: int
    record: FitRecord

    def __call__(self, ctx: TorchContext) -> None:
        """Train; rank 0 saves the model, parameters and history into the output directory."""
        worker = _Worker(self, ctx)
        if not worker.is_over:
            passes = enumerate(ctx.arrow_passes(self.batch_rows), ctx.epoch)
            for epoch, batches in passes:
                worker.train(epoch, batches)
                if worker.end_epoch().is_last:
                    break
        worker.save()


class _Worker:
    """One worker's model, and what it knows of the course of the training. One thread."""

    def __init__(self, fitting: Fitting, ctx: TorchContext) -> None:
        self._fitting = fitting
        self._ctx = ctx
        # The first weights are those of rank 0; what the module draws later differs.
        torch.manual_seed(fitting.seed + ctx.rank)
        module: object = fitting.model()
        if not isinstance(module, nn.Module):
            msg = f"model: {fitting.model!r} made a {type(module).__name__}, and no nn.Module"
            raise ConfigError(msg)
        self._module = module.to(ctx.device)
        self._optimizer = _made_optimizer(fitting, self._module)
        schedule = None if fitting.schedule is None else fitting.schedule(self._optimizer)
        is_by_step = fitting.schedule_every == "step"
        if is_by_step and isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau):
            msg = (
                "schedule_every='step' with ReduceLROnPlateau: it looks at the loss of an "
                "epoch, which no step has. Give schedule_every='epoch'"
            )
            raise ConfigError(msg)
        self._by_step = schedule if is_by_step else None
        self._by_epoch = None if is_by_step else schedule
        self._has_held_out = ctx.settings.has_held_out
        self._course = Course(fitting.early_stopping, has_held_out=self._has_held_out)
        self._trained = self._new_sums()
        self._state = FitState(
            self._course,
            epochs=ctx.epochs,
            trained=lambda: self._trained.to_list(),
            restore_trained=self._trained.set,
            copy_model=self._copy_weights if ctx.is_saver else None,
        )
        ctx.checkpointed(
            model=self._module,
            optimizer=self._optimizer,
            fit=self._state,
            **_named(schedule, is_behind_rows=ctx.began_behind_rows),
        )
        ctx.data_parallel(self._module, self._optimizer, self._by_step)
        ctx.add_up([])  # all meet now: behind the first epoch one may come much later
        assert ctx.input_schema is not None
        self._examples = ExamplePlan(
            fitting.features,
            fitting.label,
            ctx.input_schema,
            LoadedModule(self._module, ctx.device),
        )

    @property
    def is_over(self) -> bool:
        """Whether it stopped early, before a restored checkpoint."""
        return self._state.is_over

    def train(self, epoch: int, batches: Iterable[Any]) -> None:
        """Make a step on each batch; add up loss and metrics as the steps saw them."""
        if self._state.is_new(epoch):
            if epoch:
                self._step_by_epoch()
            self._trained = self._new_sums()
            self._state.begin_epoch(epoch, float(self._optimizer.param_groups[0]["lr"]))
        self._module.train()
        for batch in batches:
            example = self._examples.make(batch)
            self._optimizer.zero_grad()
            outputs, labels = self._call(example)
            loss = self._fitting.loss(outputs, labels)
            value = _number("loss", loss)
            place = f", at step {self._ctx.steps + 1}, on {example.rows} rows of worker "
            require_finite("loss", value, epoch, f"{place}{self._ctx.rank}")
            loss.backward()
            self._optimizer.step()
            if self._by_step is not None:
                self._by_step.step()
            means = {"loss": value, **self._metrics(outputs, labels)}
            self._trained.add(example.rows, means)
            self._ctx.report(epoch=epoch, loss=value)

    def end_epoch(self) -> Verdict:
        """Look at the held-out rows and decide, as all workers do. Collective."""
        held_out = self._evaluate() if self._has_held_out else self._new_sums()
        trained = self._trained
        mine = trained.to_list()
        totals = self._ctx.add_up([*mine, *held_out.to_list()])
        values = {
            **trained.means_of(totals[: len(mine)]),
            **held_out.means_of(totals[len(mine) :], "val_"),
            "learning_rate": self._state.rate,
        }
        verdict = self._state.end_epoch(values)
        self._ctx.report(**values)
        return verdict

    def save(self) -> None:
        """Write the model, the best if one was kept, and its record; rank 0 does.

        The module stays as it is: a restored fit ends its last epoch once more.
        """
        best = self._state.best
        path = self._ctx.save(self._module if best is None else best, MODEL_FILE)
        if self._ctx.is_saver:
            self._fitting.record.write(path.parent, self._course.history)

    def _step_by_epoch(self) -> None:
        """Advance the schedule behind the epoch that has ended."""
        with warnings.catch_warnings():
            # Behind a restored checkpoint the optimizer has stepped, in another process.
            warnings.filterwarnings("ignore", "Detected call of", UserWarning)
            if isinstance(self._by_epoch, torch.optim.lr_scheduler.ReduceLROnPlateau):
                values = self._course.latest
                self._by_epoch.step(values.get("val_loss", values["loss"]))
            elif self._by_epoch is not None:
                self._by_epoch.step()

    def _copy_weights(self) -> dict[str, Any]:
        state: dict[str, Any] = self._module.state_dict()  # a new one, with torch's metadata
        for name, value in state.items():
            if isinstance(value, torch.Tensor):
                state[name] = value.detach().clone()
        return state

    def _evaluate(self) -> Sums:
        self._module.eval()
        sums = self._new_sums()
        with torch.no_grad():
            for batch in self._ctx.arrow_held_out(self._fitting.batch_rows):
                example = self._examples.make(batch)
                outputs, labels = self._call(example)
                loss = _number("loss", self._fitting.loss(outputs, labels))
                sums.add(example.rows, {"loss": loss, **self._metrics(outputs, labels)})
        return sums

    def _call(self, example: Example) -> tuple[Any, Any]:
        """Return the outputs of the model, and the labels as they are compared with them."""
        device = self._ctx.device
        args = [_on(device, each) for each in example.call.args]
        named = {name: _on(device, each) for name, each in example.call.named.items()}
        outputs = self._module(*args, **named)
        return outputs, _labels_for(outputs, _on(device, example.labels))

    def _metrics(self, outputs: Any, labels: Any) -> dict[str, float]:
        with torch.no_grad():
            return {
                name: _number(f"metrics[{name!r}]", function(_detached(outputs), labels))
                for name, function in self._fitting.metrics.items()
            }

    def _new_sums(self) -> Sums:
        return Sums(["loss", *self._fitting.metrics])


def _named(schedule: Any, *, is_behind_rows: bool) -> dict[str, Any]:
    """Return what `ctx.checkpointed` is to keep of the schedule."""
    if schedule is None:
        return {}
    if hasattr(schedule, "state_dict") and hasattr(schedule, "load_state_dict"):
        return {"schedule": schedule}
    if is_behind_rows:
        msg = (
            f"schedule made a {type(schedule).__name__}, which has no state_dict and no "
            "load_state_dict, so Flink's checkpoints hold nothing of it and this fit cannot go "
            "on from one. Give it both, as torch.optim.lr_scheduler.LRScheduler has, or start "
            "the job without restoring it"
        )
        raise PlanError(msg)
    return {}


def _labels_for(outputs: Any, labels: Any) -> Any:
    """Return labels of the outputs' shape in their type, and class numbers as int64."""
    if not isinstance(outputs, torch.Tensor) or not isinstance(labels, torch.Tensor):
        return labels
    if {outputs.ndim, labels.ndim} == {1, 2} and outputs.numel() == labels.numel():
        labels = labels.reshape(outputs.shape)
    if labels.shape == outputs.shape:
        return labels.to(outputs.dtype)
    return labels if labels.is_floating_point() else labels.long()


def _made_optimizer(fitting: Fitting, module: nn.Module) -> torch.optim.Optimizer:
    made: object = fitting.optimizer(module.parameters())
    if not isinstance(made, torch.optim.Optimizer):
        msg = (
            f"optimizer: {fitting.optimizer!r} made a {type(made).__name__}, and no "
            "torch.optim.Optimizer"
        )
        raise ConfigError(msg)
    return made


def _detached(outputs: Any) -> Any:
    """Return the same without the graph, which metrics need not and may not touch."""
    if isinstance(outputs, torch.Tensor):
        return outputs.detach()
    if isinstance(outputs, Mapping):
        return {name: _detached(each) for name, each in outputs.items()}
    return [*map(_detached, outputs)] if isinstance(outputs, list | tuple) else outputs


def _number(what: str, value: Any) -> float:
    if not isinstance(value, torch.Tensor):
        return float(value)
    if value.numel() != 1:
        msg = (
            f"{what} must return one number, the mean over the rows, and returned a tensor of "
            f"shape {tuple(value.shape)}; for a loss of torch leave reduction='mean'"
        )
        raise ConfigError(msg)
    return float(value.item())


def _on(device: torch.device, value: Any) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value
