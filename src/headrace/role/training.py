"""The context of a process that trains: what all frameworks have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from headrace.errors import UsageError
from headrace.framework.stopping import StopRequestedExit, require_no_stop
from headrace.role.alone import Alone
from headrace.role.arrays import NullRule
from headrace.role.dropping import drop_rows
from headrace.role.exporting_context import ExportingContext
from headrace.role.held_out import HeldOutFeed, HeldOutPlace
from headrace.role.output_dir import path_below, require_writable
from headrace.role.polled import PollResult
from headrace.role.reader import BatchReader
from headrace.role.restored import require_not_restored
from headrace.role.rounds import Rounds
from headrace.role.settings import TrainingSettings
from headrace.role.star import Star, StarSpec, open_star

__all__ = ["TrainingContext"]


class TrainingContext(ExportingContext):
    """A `RoleContext` that knows the plan of the training and takes part in common steps.

    Framework layers derive from it; their `save` asks `_place_to_save` where, and `is_saver`
    whether, and only has to write the thing. Their `data_parallel` sets `_steps`, to which
    everything here that reads input or ends it gives its turn. Thread model: as `RoleContext`.

    Attributes:
        settings: What holds for every process of the training.
    """

    _steps: Rounds | Alone = Alone()
    _is_data_parallel = False
    _is_input_ended = False
    _drops_rows = False
    _dropped_rows = 0
    _held_out: HeldOutFeed | None = None
    _misses_held_out = False
    _star: Star | None = None

    def use_settings(self, settings: TrainingSettings) -> None:
        """Take what the job was planned with; `RoleEntry.prepare` of a framework calls this.

        Raises:
            ConfigError: This process is to save, and cannot write to the output directory.
        """
        self.settings = settings
        if settings.has_held_out and self._feed is not None:
            self._feed = self._held_out = HeldOutFeed(self._feed, self._work_dir / "held_out")
            self._restore_held_out(self._held_out)
        if self.is_saver and settings.output_dir is not None:
            require_writable(settings.output_dir)

    @property
    def epochs(self) -> int:
        """Passes over the input that the job was planned with."""
        return self.settings.epochs

    @property
    def is_saver(self) -> bool:
        """Whether `save` writes in this process; it does in one only, that of index 0."""
        return self.index == 0

    @property
    def steps(self) -> int:
        """Common optimizer steps since `data_parallel`; the same on all workers."""
        return self._steps.steps

    def batches(
        self,
        rows: int = 1024,
        epochs: int | None = None,
        *,
        nulls: NullRule = "error",
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the input as in `RoleContext.batches`.

        Args:
            rows: Rows per batch of this process, at least 1.
            epochs: Passes over a bounded input; None: what the job was planned with.
            nulls: "error", or "mask" for a second array `<column>__valid`.
            timeout_s: Longest wait for one batch, in seconds; None waits as long as the job
                runs.

        Returns:
            As `RoleContext.batches`.

        Raises:
            CollectiveError: Beside the errors of `RoleContext.batches`: after `data_parallel`,
                a peer ended, or did not come within `timeouts.collective_timeout_s`.
        """
        return super().batches(rows, self._passes(epochs), nulls=nulls, timeout_s=timeout_s)

    def arrow_batches(
        self, rows: int = 1024, epochs: int | None = None, *, timeout_s: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over the input as Arrow record batches; see `RoleContext.arrow_batches`."""
        return super().arrow_batches(rows, self._passes(epochs), timeout_s=timeout_s)

    def passes(
        self, rows: int = 1024, *, nulls: NullRule = "error"
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Iterate over the planned passes: each is an iterator over its batches.

        Between two passes all workers are at the same point: after `data_parallel` each comes
        there when the last of them has ended its pass, one without rows too. So it is the place
        to look at `held_out`, to `add_up`, and to decide together whether to go on.

        Args:
            rows: Rows per batch of this process, at least 1.
            nulls: As for `batches`.

        Returns:
            An iterator over the batches of a pass for each one, to be used up before the next:
            column name to array or tensor, as from `batches`. Behind a restored checkpoint the
            first has the rest of its pass. Errors are those of `batches`; none comes before the
            iteration begins.

        Example:
            for batches in ctx.passes(256):
                for batch in batches:
                    train(batch)
                loss, count = ctx.add_up(evaluate(ctx.held_out(256)))
        """
        self._choose_nulls(nulls)
        for batches in self.arrow_passes(rows):
            yield map(self._convert, batches)

    def arrow_passes(self, rows: int = 1024) -> Iterator[Iterator[pa.RecordBatch]]:
        """Iterate over the planned passes as Arrow record batches; else like `passes`."""
        reader = self.open_reader(rows=rows, epochs=self.epochs)
        for _ in range(self.epoch, self.epochs):  # behind a restored checkpoint, the rest
            yield self._ready(reader, None, is_one_pass=True)

    def held_out(self, rows: int = 1024) -> Iterator[dict[str, Any]]:
        """Iterate over this process' part of the held-out rows, as often as is wished.

        Like `batches`, but nothing is counted and no step is waited for. NULL is treated as the
        last call of `batches` or `passes` said.

        Args:
            rows: Rows per batch, at least 1; the last may have fewer.

        Returns:
            Column name to array or tensor, as from `batches`: (rows,), or (rows, k) of an ARRAY
            of numbers of one length k, with the dtypes of the rows to train on.

        Raises:
            ConfigError: `rows` is below 1.
            UsageError: The job was planned without `held_out`, or its input has not ended: the
                first pass must be over.
            PlanError: The job was restored from a Flink checkpoint that does not hold them.
            DataError: A column has a NULL that its array cannot hold.
            ExchangeError: The operator is gone.
        """
        return map(self._convert, self.arrow_held_out(rows))

    def arrow_held_out(self, rows: int = 1024) -> Iterator[pa.RecordBatch]:
        """Iterate over the held-out rows as Arrow record batches; else like `held_out`."""
        if self._held_out is None:
            msg = "ctx.held_out: no rows are held out; plan the training with held_out=table"
            raise UsageError(msg)
        require_not_restored(is_restored=self._misses_held_out)
        return self._attending(self._held_out.held_out(rows))

    def _restore_held_out(self, held_out: HeldOutFeed) -> None:
        place: HeldOutPlace | None = self._kept.restored_part("held_out", None)
        self._misses_held_out = self._kept.began_behind_rows and place is None
        if place is not None:
            held_out.go_on_with(place)
        self._kept.keep_part("held_out", lambda: held_out.place)

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Add numbers up over all processes of this role, in double precision.

        Collective: every process calls it, with as many numbers. All get the same result, bit
        for bit. At the first call they meet: where one may come much later than another, say
        behind an evaluation, call ``ctx.add_up([])`` before.

        Args:
            values: This process' numbers; float64 holds each of them.

        Returns:
            The sums, in the order of `values`.

        Raises:
            CollectiveError: A peer ended, or did not come within
                `timeouts.collective_timeout_s`.
            WaitTimeoutError: At the first call, not all came within
                `timeouts.gather_timeout_s`.
            ConfigError: A peer gave another number of them.
        """
        vector = np.array(values, np.float64)
        if self._star is None:
            spec = StarSpec(
                name=f"add_up/{self.role}/{self.attempt}",
                rank=self.index,
                world_size=self.parallelism,
                host=self.cluster[self.role][self.index] if self.parallelism > 1 else "",
                gather_timeout_s=self.timeouts.gather_timeout_s,
                collective_timeout_s=self.timeouts.collective_timeout_s,
                check=self._stand_by,
                met_by="ctx.add_up",
                advice="Every process must call ctx.add_up as often, with as many numbers",
            )
            self._star = open_star(spec, self._link)
        self._star.add(vector)
        return list(vector.tolist())

    def output_path(self, name: str) -> Path:
        """Return where `save` puts the file or directory `name`, the same in every process.

        Args:
            name: A relative path below the output directory.

        Raises:
            UsageError: The job was planned without `output_dir`.
            ConfigError: `name` leads out of the output directory.
        """
        if self.settings.output_dir is None:
            msg = "ctx.save needs a place: plan the training with an output_dir"
            raise UsageError(msg)
        return path_below(self.settings.output_dir, name)

    def report(self, **values: Any) -> None:
        """Tell the latest values; after `data_parallel`, `steps` is always among them.

        See `RoleContext.report`, for the errors too.
        """
        super().report(**self._with_steps(values))

    def close(self, *, is_success: bool) -> None:
        """End the process's part; at success take part in the others' last steps. Idempotent.

        After `data_parallel` the others' steps come first: until all are finished, this worker
        answers its barriers with the others, and its model is part of the answer. So does who
        answers for parameter servers. An entry function that has left its loop early reads no
        more: the rows that Flink still has for it are dropped, so they hold nobody up.
        """
        try:
            self._end_common(is_success=is_success)
            super().close(is_success=is_success)
            if is_success and not self._ends_in_common:
                self._steps.finish(self._attend)
            self._end_exports(is_success=is_success)
        finally:
            self._close_parts()

    @property
    def _ends_in_common(self) -> bool:
        steps = self._steps
        return self._is_data_parallel or (isinstance(steps, Alone) and steps.is_common)

    def _end_common(self, *, is_success: bool) -> None:
        if not self._ends_in_common or self._is_closed:
            return
        try:
            if is_success:
                self._drops_rows = True
                self._steps.finish(self._attend)
            self.report()  # the steps that it has only shared, too
        except StopRequestedExit:
            super().stop()  # perhaps in the midst of a step that it shadows
            raise
        except BaseException:
            super().close(is_success=False)
            raise

    def stop(self) -> None:
        """End the process's part because its node says so; the others are ended as well."""
        try:
            super().stop()
        finally:
            self._close_parts()

    def _close_parts(self) -> None:
        """Close what `close` and `stop` close alike. Idempotent."""
        self._end_exports(is_success=False)
        self._steps.close()
        if self._star is not None:
            self._star.close()

    def _attending(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self._reporter.note()
            self._attend()
            yield batch

    def _begin_steps(self, *shared: object) -> None:
        """Begin the common steps, or go on where a restored checkpoint has left them.

        Args:
            shared: What all workers hold alike after each of them; the rest is each one's own.
        """
        self._kept.share(*shared)  # of one worker too: it may be restored with more
        restored = self._kept.restored_part("steps", None)
        if restored is not None:
            self._steps.restore(*restored)
        self._kept.keep_part(
            "steps", lambda: (self._steps.common_part(), self._steps.own_part())
        )
        self._steps.use_barriers(self._barriers)

    def _with_steps(self, values: dict[str, Any]) -> dict[str, Any]:
        return {"steps": self.steps, **values} if self._is_data_parallel else values

    def _place_to_save(self, name: str) -> Path:
        """Return `output_path`; once the own input has ended, after the others' last steps."""
        path = self.output_path(name)
        if self._is_input_ended:
            self._steps.settle(self._attend)
        return path

    def _stand_by(self) -> None:
        """Answer what must not wait while this worker waits for the others."""
        require_no_stop()
        self._attend()

    def _attend(self) -> None:
        """Answer what must not wait while this worker only shadows the others."""
        if self._drops_rows and self._reader is None and self.input_schema is not None:
            self.open_reader(rows=1024, epochs=self.epochs)
        if self._reader is None:
            self._reporter.tick()
        elif not self._is_closed:
            self._attend_input(self._reader)

    def _attend_input(self, reader: BatchReader) -> None:
        if self._drops_rows:
            self._dropped_rows += drop_rows(reader)
        else:
            reader.attend()

    def _row_counts(self) -> tuple[int, int]:
        rows_in, rows_out = super()._row_counts()
        held_out = 0 if self._held_out is None else self._held_out.rows
        return rows_in - self._dropped_rows + held_out, rows_out

    def _wait(self, poll: Callable[[float], PollResult | None]) -> PollResult:
        return cast("PollResult", self._steps.wait(poll))

    def _on_batch(self, rows: int) -> None:
        self._steps.count(rows)

    def _on_epoch_ended(self, epoch: int) -> None:
        assert self._reader is not None
        if epoch + 1 < self._reader.epochs:
            self._steps.end_pass(self._attend)

    def _on_input_ended(self) -> None:
        self._is_input_ended = True
        if self._steps.pending_rows:
            # The loop has rows that it has not stepped on, such as the last batch of a
            # DataLoader: it gets the chance to, and joins the others then.
            self._steps.finish_after_step(self._attend)
        else:
            self._steps.finish(self._attend)

    def _passes(self, epochs: int | None) -> int:
        return self.epochs if epochs is None else epochs
