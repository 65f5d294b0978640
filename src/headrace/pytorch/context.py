"""The context of a PyTorch worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from headrace._counts import require_count
from headrace.errors import UsageError
from headrace.pytorch.alone import AloneSteps
from headrace.pytorch.dataset import BatchDataset, split_rows
from headrace.pytorch.group import close_group
from headrace.pytorch.lockstep import Lockstep
from headrace.pytorch.lone_step import LoneStep
from headrace.pytorch.owning import own_state
from headrace.pytorch.parallel import open_lockstep, require_supported
from headrace.pytorch.saving import save_atomically
from headrace.pytorch.schedule import Scheduler
from headrace.pytorch.servable import ExportedForm, form_of
from headrace.pytorch.settings import TorchSettings
from headrace.pytorch.tensors import Column, TensorConverter
from headrace.role import NullRule, Servable, TrainingContext, require_not_restored
from headrace.role.dropping import drop_rows
from headrace.role.rounds import Reduction

__all__ = ["TorchContext"]

_M = TypeVar("_M", bound=torch.nn.Module)
_SINGLE_ROWS = (
    "ctx.checkpointed with ctx.dataset() of single rows: a DataLoader keeps some of them while "
    "it asks for more, so a checkpoint would miss them. Let Headrace group them: "
    "DataLoader(ctx.dataset(rows=n), batch_size=None)"
)


class TorchContext(TrainingContext):
    """The one argument of a PyTorch entry function.

    The default process group of `torch.distributed` exists already, also with one worker, so
    that `DistributedDataParallel` and other collectives work as they are.

    Thread model: as `RoleContext`; the methods that are collective say so, and wait for peers
    at most `timeouts.collective_timeout_s`.

    Attributes:
        device: Where to compute; batches come on the CPU, ``.to(ctx.device)`` moves them.
        rank: This worker's number in the process group, 0 to `world_size` - 1.
        world_size: Workers in the group, at run time.
    """

    settings: TorchSettings = TorchSettings()
    device = torch.device("cpu")
    _converter: TensorConverter | None = None
    _steps: Lockstep | AloneSteps

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self._steps = AloneSteps()
        self._watch = LoneStep(lambda: self._reader is not None)
        self._progress_hook: Any = None

    def watch_steps(self) -> None:
        """Notice an optimizer that steps without `data_parallel`; `TorchEntry` calls this."""
        self._progress_hook = register_optimizer_step_post_hook(self._on_progress)
        if self.input_schema is not None:
            self._watch.open(workers=self.world_size, is_restored=self._kept.misses_rows)

    @property
    def rank(self) -> int:
        """This worker's number in the process group."""
        return self.index

    @property
    def world_size(self) -> int:
        """Workers in the group."""
        return self.parallelism

    def checkpointed(self, **objects: Any) -> Any:
        """Keep objects in Flink's checkpoints; see `RoleContext.checkpointed`.

        Call it before `data_parallel`. With `export_to` it chooses, too; see `exported`.
        """
        given = super().checkpointed(**objects)
        if self.is_restored:
            for each in objects.values():
                if isinstance(each, torch.optim.Optimizer):
                    own_state(each)
        if not self._kept.misses_rows:
            self._watch.allow_restored()
        return given

    def exported(
        self,
        model: torch.nn.Module,
        *,
        example: Sequence[Any] | None = None,
        dynamic_shapes: Any = None,
    ) -> None:
        """Choose what `export_to` writes for each completed checkpoint, and in which form.

        Not needed where `checkpointed` has named one model, or one as `model`, and its state
        dict is what is served. Call it after `checkpointed`, before the input is read. It does
        nothing in a job that was planned without `export_to`.

        Args:
            model: One of the models that `checkpointed` has named.
            example: Arguments of one call of the model, a tuple of tensors (rows, ...) of 2
                rows or more, in the types that will be served: what `torch.export` makes of the
                model is written, for any number of rows (`latest.pt2`). None: its state dict,
                or the whole of a scripted one (`latest.pt`).
            dynamic_shapes: As `torch.export.export` takes it, where the first dimension of each
                argument is not the rows.

        Example:
            ctx.checkpointed(model=model, optimizer=optimizer)
            ctx.exported(model, example=(torch.zeros(2, 3),))

        Raises:
            UsageError: `checkpointed` has not named it, or the input is being read.
            ConfigError: It cannot be exported.
        """
        if example is None:
            self._choose(model, form_of)
        else:
            self._choose(model, lambda each: ExportedForm(each, example, dynamic_shapes))

    def batches(
        self,
        rows: int = 1024,
        epochs: int | None = None,
        *,
        nulls: NullRule = "error",
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Column]]:
        """Iterate over the input as mappings of column names to tensors.

        Numbers without NULL lie in shared memory: read-only, ``clone()`` before an in-place
        operation. `headrace.pytorch.tensors` has the rule for each type; what torch has no type
        for comes as a NumPy array. Everything else is as in `RoleContext.batches`.

        After `data_parallel`, asking for the next batch also takes part in the steps of the
        other workers while this one has no rows, and the iteration ends when the input of
        *all* workers has.

        Args:
            rows: Rows per batch of this worker, at least 1.
            epochs: Passes over a bounded input; None: what the job was planned with.
            nulls: "error", or "mask" for a second tensor ``<column>__valid``, bool (rows,).
            timeout_s: Longest wait for one batch, in seconds; None waits as long as the job
                runs.

        Returns:
            Column name to tensor, on the CPU, of the column's own type: (rows,), or (rows, k)
            of an ARRAY of numbers whose lists all have k elements.

        Raises:
            UsageError: No step came behind `all_reduce_gradients`.
            CollectiveError: After `data_parallel`, a peer ended, or did not come in time.
        """
        return super().batches(rows, epochs, nulls=nulls, timeout_s=timeout_s)

    def dataset(
        self, rows: int | None = None, epochs: int | None = None, *, nulls: NullRule = "error"
    ) -> BatchDataset:
        """Return the input as a dataset for ``DataLoader``, which must have ``num_workers=0``.

        Args:
            rows: Rows of an element, for ``DataLoader(dataset, batch_size=None)``. None: an
                element is one row, and ``DataLoader(dataset, batch_size=n)`` groups them.
            epochs: As for `batches`.
            nulls: As for `batches`.

        Returns:
            A dataset whose elements are what `batches` yields; or, without `rows`, single rows:
            column name to a tensor () or (k,), or to a value of NumPy or Python.

        Raises:
            ConfigError: `rows` is below 1.
            UsageError: When it is iterated, as are the errors of `batches`: in another process
                than the worker's; or of single rows, after `checkpointed`.
        """
        size = 1024 if rows is None else require_count("rows", rows)

        def read() -> Iterator[dict[str, Any]]:
            batches = self.batches(size, epochs, nulls=nulls)
            if rows is not None:
                return batches
            if self._kept.has_objects:
                raise UsageError(_SINGLE_ROWS)
            assert self._reader is not None
            self._reader.allows_short = True  # the loader groups them: no row waits for others
            return self._single_rows(batches)

        return BatchDataset(read)

    def data_parallel(
        self,
        model: _M,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None = None,
        *,
        loss_reduction: Reduction = "mean",
        before_step: Callable[[], object] | None = None,
    ) -> _M:
        """Make every ``optimizer.step()`` one step of all workers on the union of their rows.

        The result is that of one process that gets the union of the batches in each step,
        within float tolerance, however the rows are split. The model of rank 0 is copied to
        all. Write the loop as for one process: ``zero_grad``, loss, ``backward``, ``step``. A
        worker without rows takes part with no weight (a shadow step), so nobody waits for rows
        that do not come.

        A step's weight is the number of rows that `batches` yielded since the last step;
        `step_rows` overrides it. With neither, the rows of the last step count again, and 1 if
        there was none: a worker that reads its own files has equal weight in each step.
        Several batches may be accumulated into one step.

        Collective: every worker calls it once, with the same model, before its first step.
        With one worker nothing is changed, bit for bit. With several, ``optimizer.step()`` may
        raise what this does, and a `UsageError` with a closure or after all have finished.

        Args:
            model: On one device. Returned as it is. Floating-point buffers (running means) are
                averaged over the rows in each step.
            optimizer: Any that steps without closure. One per process.
            scheduler: Give it if the loop calls ``scheduler.step()`` after every
                ``optimizer.step()``: it is advanced in shadow steps as well. Learning rates
                that differ between workers are an error.
            loss_reduction: "mean" if the loss is the mean over the rows of the batch, "sum" if
                it is their sum.
            before_step: Called on every worker between the all-reduce and the step, also in
                shadow steps: the place to clip gradients.

        Returns:
            `model`.

        Raises:
            UsageError: It was called before.
            ConfigError: The workers' models differ, or the model or optimizer cannot be used
                like this.
            CollectiveError: A peer ended, or did not come in time.
            PlanError: The job was restored from a Flink checkpoint, and the model was not
                restored from it: it would get only the rows behind it.

        Source: docs/adr/0030, 0031, 0095.
        """
        if self._is_data_parallel:
            msg = (
                "ctx.data_parallel was called before; it takes one optimizer. Put the "
                "parameters of several models into one optimizer with parameter groups."
            )
            raise UsageError(msg)
        require_not_restored(is_restored=self._kept.misses_rows)
        require_supported(model, optimizer, scheduler, loss_reduction)
        self._watch.close()
        self._is_data_parallel = True
        if self.world_size > 1:
            self._steps = open_lockstep(
                model,
                optimizer,
                scheduler,
                reduction=loss_reduction,
                before_step=before_step,
                idle_after_s=self.settings.idle_after_s,
                collective_timeout_s=self.timeouts.collective_timeout_s,
            )
        else:
            self._steps = AloneSteps(optimizer, before_step)
        self._begin_steps(model, optimizer, scheduler)
        return model

    def step_rows(self, rows: int) -> None:
        """Set the weight of the next step, for a loop that trains on other rows.

        Args:
            rows: Rows behind the gradients of the next ``optimizer.step()``, at least 1.

        Raises:
            ConfigError: `rows` is no whole number of at least 1.
        """
        self._steps.give_rows(require_count("rows", rows))

    def all_reduce_gradients(self) -> None:
        """Make ``p.grad`` the gradient of the union of the rows before ``optimizer.step()``.

        For a loop that changes gradients itself, for example clips them. ``step()`` must
        follow, every time. Prefer `before_step`, which saves a second all-reduce when a worker
        is without rows. Nothing happens with one worker.

        Raises:
            UsageError: `data_parallel` was not called, or there was no step since the last
                call, or all workers have finished.
            CollectiveError: A peer ended, or did not come in time.
        """
        self._require_data_parallel("all_reduce_gradients")
        self._steps.reduce_now()

    def join(self) -> None:
        """Say that this worker makes no further step, and take part until no worker does.

        For a worker that reads its own files and then goes on, for example to evaluate: its
        peers may have more steps. `batches` does this when the input ends, and returning from
        the entry function does it too. Blocks until the slowest worker is there; idempotent.

        Raises:
            UsageError: `data_parallel` was not called.
            CollectiveError: A peer ended, or did not come in time.
        """
        self._require_data_parallel("join")
        self._steps.finish(self._drop_input)

    def save(self, thing: Any, name: str = "model.pt") -> Path:
        """Write a model into the job's output directory; only rank 0 does.

        A module is saved as its state dict. The file appears as a whole or not at all. After
        the own input has ended it waits for the others' last steps first, so the model is the
        final one.

        Args:
            thing: A module, a scripted or exported one (a whole model), a state dict, or
                anything that `torch.save` takes.
            name: File name, may have directories.

        Returns:
            The path of the file, on every worker.

        Raises:
            UsageError: The job was planned without `output_dir`.
            ConfigError: `name` leads out of the output directory.
            CollectiveError: A peer ended before its last step, or did not come to it.
            OSError: The file cannot be written.
        """
        path = self._place_to_save(name)
        if self.is_saver:
            save_atomically(thing, path)
            self._on_progress()
        return path

    def _is_model(self, each: object) -> bool:
        return isinstance(each, torch.nn.Module)

    def _servable(self, model: torch.nn.Module) -> Servable:
        return form_of(model)

    def close(self, *, is_success: bool) -> None:
        """End the process's part and leave the process group; see `TrainingContext.close`.

        Not behind an exception, where peers would tell of that before its cause was told.
        """
        leaves = self.world_size == 1
        try:
            super().close(is_success=is_success)
            leaves = leaves or is_success
        finally:
            if leaves:
                close_group()

    def _close_parts(self) -> None:
        super()._close_parts()
        self._watch.close()
        if self._progress_hook is not None:
            self._progress_hook.remove()
            self._progress_hook = None

    def _on_progress(self, *_: Any) -> None:
        """Tell that the process gets on, also in a loop that asks for no rows."""
        self._reporter.note()
        self._reporter.tick()

    def _drop_input(self) -> None:
        """Take rows that nobody wants, lest they hold up the rows of the others in Flink."""
        if self._reader is None:
            self._reporter.tick()
        else:
            drop_rows(self._reader)

    def _require_data_parallel(self, method: str) -> None:
        if not self._is_data_parallel:
            msg = f"ctx.{method}() needs ctx.data_parallel(model, optimizer) before it"
            raise UsageError(msg)

    def _convert(self, batch: pa.RecordBatch) -> dict[str, Column]:
        converter = self._converter
        if converter is None or converter.nulls != self._nulls:
            converter = self._converter = TensorConverter(batch.schema, self._nulls)
        return converter(batch)

    def _single_rows(self, batches: Iterator[dict[str, Column]]) -> Iterator[dict[str, Any]]:
        for batch in batches:
            rows = split_rows(batch)
            # It was counted as a batch; here each row counts when it is read.
            self._steps.count(-len(rows))
            for row in rows:
                self._steps.count(1)
                yield row
