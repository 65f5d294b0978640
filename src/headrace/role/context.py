"""What an entry function gets: its role, its rows, and what it may say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast, get_args

import pyarrow as pa

from headrace._counts import require_count
from headrace.errors import ConfigError, DataError, UsageError
from headrace.exchange import Feed
from headrace.framework.process import ProcessSpec
from headrace.role.arrays import NullRule, to_numpy
from headrace.role.barriers import Barriers
from headrace.role.bounded import bounded_poll
from headrace.role.emission import to_batches, to_timestamps_ms
from headrace.role.generators import Generators
from headrace.role.keeping_context import KeepingContext
from headrace.role.kept_state import KeptState
from headrace.role.link import RoleLink
from headrace.role.polled import EpochEnded, InputEnded, PollResult, ReadyBatch
from headrace.role.reader import BatchReader
from headrace.role.reporting import Reporter, wait_patiently
from headrace.role.saving_context import SavingContext
from headrace.role.telling_context import TellingContext

__all__ = ["RoleContext"]


class RoleContext(KeepingContext, SavingContext, TellingContext):
    """The one argument of an entry function.

    Thread model: one thread at a time, in the process that runs the entry function; not in
    DataLoader workers (use `num_workers=0`).

    Subclasses change what a batch looks like by overriding `_convert`, and have a part in the
    loop over the input by overriding `_wait` and the `_on_` methods.

    Attributes:
        job_name: Name of the job.
        role: Name of this role, for example "worker".
        index: Number of this process within its role, from 0.
        parallelism: Processes of this role, at run time.
        attempt: Number of the group's start, from 1; higher after a restart.
        cluster: Role to the hosts of its processes, in the order of their index.
        addresses: Role to the "host:port" of its processes, likewise; only roles whose
            processes have ports.
        port: The TCP port kept for this process, see `RoleConfig.has_port`, or None.
        options: JSON values of the role, see `RoleConfig.options`.
        checkpoint_dir: Directory that all attempts share; None if the job has none.
        is_restored: Whether the input starts behind a Flink checkpoint, so that rows before it
            will not come again.
        timeouts: Limits on every wait, in seconds.
    """

    def __init__(
        self,
        *,
        spec: ProcessSpec,
        link: RoleLink,
        feed: Feed | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_report: Callable[[Mapping[str, Any]], object] | None = None,
    ) -> None:
        """Wrap an open feed; `RoleEntry.open_context` does this.

        Args:
            spec: The facts about this process.
            link: The line to the node.
            feed: Where rows come from and go to; the context closes it.
            clock: Monotonic seconds.
            on_report: Called with the values of each `report`, which the link gets thinned out.
        """
        self.job_name = spec.job_name
        self.role = spec.role
        self.index = spec.index
        self.parallelism = spec.parallelism
        self.attempt = spec.attempt
        self.cluster: Mapping[str, tuple[str, ...]] = MappingProxyType(
            {role: tuple(hosts) for role, hosts in spec.cluster.items()}
        )
        self.addresses: Mapping[str, tuple[str, ...]] = MappingProxyType(spec.addresses)
        self.port = spec.port
        self.options: Mapping[str, Any] = MappingProxyType(dict(spec.options))
        self.checkpoint_dir = None if spec.checkpoint_dir is None else Path(spec.checkpoint_dir)
        self.is_restored = spec.is_restored
        self.timeouts = spec.timeouts
        self._node = spec.node
        self._work_dir = Path(spec.work_dir)
        self._link = link
        self._feed = feed
        self._clock = clock
        self._generators = self._make_generators()
        self._kept = KeptState(spec, self._generators)
        self._expects_capture = spec.has_checkpoints
        self._barriers: Barriers | None = None
        if feed is not None and feed.input_schema is not None:
            self._barriers = Barriers(feed, self._capture)
        self._reader: BatchReader | None = None
        self._timestamps_ms: pa.Array | None = None
        self._nulls: NullRule = "error"
        self._rows_out = 0
        self._has_wished = False
        self._is_closed = False
        self._on_report = on_report
        self._reporter = Reporter(link, self._row_counts, clock, self._progress)

    @property
    def output_schema(self) -> pa.Schema | None:
        """Columns that `emit` takes; None if the role has no output."""
        return None if self._feed is None else self._feed.output_schema

    @property
    def epoch(self) -> int:
        """The pass over the input that is being read, from 0."""
        return self._kept.restored_epoch if self._reader is None else self._reader.epoch

    @property
    def timestamps_ms(self) -> pa.Array | None:
        """Flink timestamps of the last batch's rows: int64 (rows,), milliseconds since 1970.

        NULL for a row without one; None where no row has one, and before the first batch.
        """
        return self._timestamps_ms

    def batches(
        self,
        rows: int = 1024,
        epochs: int = 1,
        *,
        nulls: NullRule = "error",
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Iterate over the input as mappings of column names to arrays.

        Numbers without NULL lie in shared memory and are read-only: copy before changing them.
        They stay valid as long as they are kept. The module `headrace.role.arrays` has the rule
        for each type.

        Asking for the next batch says that all earlier ones were handled and their rows
        emitted. A batch has exactly `rows` rows, except the last of an epoch and the last
        before a Flink checkpoint. A loop that was left can be taken up by a second call, which
        goes on with the next row.

        Args:
            rows: Rows per batch, at least 1.
            epochs: Passes over a bounded input: the first streams, later ones read a local copy
                on disk.
            nulls: What to do with NULL in integer and BOOLEAN columns: "error", or "mask" for a
                second array `<column>__valid`.
            timeout_s: Longest wait for one batch, in seconds; None: as long as the job runs.

        Returns:
            Column name to array: (rows,), or (rows, k) of an ARRAY of numbers whose lists all
            have k elements. `headrace.role.arrays` has the dtypes.

        Raises:
            ConfigError: `rows`, `epochs` or `nulls` makes no sense.
            UsageError: The role has no input, or it was begun with other `epochs`; or what
                Flink's checkpoints are to hold cannot be pickled.
            PlanError: The job was restored from a checkpoint with which it cannot go on: its
                objects or states were not taken up, or it was made with other `epochs`.
            DataError: A column has a NULL that its array cannot hold.
            WaitTimeoutError: No batch became complete within `timeout_s`.
            ExchangeError: The operator is gone, or memory or disk is too small: for the state,
                for the rows of later passes.
        """
        self._choose_nulls(nulls)
        reader = self.open_reader(rows=rows, epochs=epochs)
        return (self._convert(batch) for batch in self._ready(reader, timeout_s))

    def _choose_nulls(self, nulls: NullRule) -> None:
        if nulls not in get_args(NullRule):
            msg = f"nulls={nulls!r} must be 'error' or 'mask'"
            raise ConfigError(msg)
        self._nulls = nulls

    def arrow_batches(
        self, rows: int = 1024, epochs: int = 1, *, timeout_s: float | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Iterate over the input as Arrow record batches, uncopied; NULL is no error in them.

        Arguments and other errors are those of `batches`.
        """
        return self._ready(self.open_reader(rows=rows, epochs=epochs), timeout_s)

    def open_reader(self, *, rows: int, epochs: int = 1) -> BatchReader:
        """Return the reader of the input, for code that has to do other things while it waits.

        There is one reader per process. A second call changes the rows per batch of the first
        one.

        Args:
            rows: Rows per batch, at least 1.
            epochs: Passes over a bounded input, at least 1.

        Raises:
            UsageError: The role has no input, or the input was started with another number of
                epochs.
            ConfigError: `rows` or `epochs` is below 1.
            PlanError: As `batches`.
            ExchangeError: The disk is too small for the rows of a restored pass.
        """
        if self._feed is None:
            msg = "This role has neither input nor output; read your own files"
            raise UsageError(msg)
        epochs = require_count("epochs", epochs)
        if self._reader is None:
            self._kept.require_all_named()
            self._reader = BatchReader(
                self._feed,
                rows=rows,
                epochs=epochs,
                spool_dir=self._work_dir,
                clock=self._clock,
                on_poll=self._tick,
                barriers=self._barriers,
                restored=self._restored_place(epochs),
            )
            if epochs > 1:
                reader = self._reader
                self._kept.keep_part("input", lambda: reader.place)
        elif self._reader.epochs != epochs:
            msg = (
                f"The input is being read with epochs={self._reader.epochs}; it cannot go on "
                f"with epochs={epochs}"
            )
            raise UsageError(msg)
        else:
            self._reader.rows = rows
            self._reader.allows_short = False
        return self._reader

    def emit(
        self, columns: Mapping[str, Any] | pa.RecordBatch | pa.Table, timestamps_ms: Any = None
    ) -> None:
        """Send rows downstream. Waits while Flink is behind (back-pressure).

        Args:
            columns: All columns of `output_schema`, in any order: NumPy arrays, tensors, lists
                or Arrow arrays of one length, (rows,). An array of shape (rows, k) becomes a
                column of lists. Values are cast where nothing is lost, and DOUBLE is rounded to
                FLOAT.
            timestamps_ms: Flink timestamp of each row, (rows,): whole milliseconds since 1970,
                or datetime64; None for none.

        Raises:
            DataError: The columns do not fit; the text names the column and both types. Nothing
                was sent.
            RowTooLargeError: A row is over `exchange.max_row_bytes`.
            PeerLostError: The operator is gone.
            UsageError: The role has no output.
        """
        schema = self.output_schema
        if self._feed is None or schema is None:
            msg = "This role has no output: give `add_role` an `output` schema to emit rows"
            raise UsageError(msg)
        stamps = to_timestamps_ms(timestamps_ms)
        batches = to_batches(columns, schema)
        rows = sum(batch.num_rows for batch in batches)
        if stamps is not None and len(stamps) != rows:
            msg = f"timestamps_ms has {len(stamps)} values for {rows} rows"
            raise DataError(msg)
        start = 0
        for batch in batches:
            piece = None if stamps is None else stamps.slice(start, batch.num_rows)
            self._feed.send(batch, piece)
            start += batch.num_rows
            self._rows_out += batch.num_rows

    def close(self, *, is_success: bool) -> None:
        """End the process's part: send the last report and, on success, the end of the output.

        Idempotent. `RoleEntry` calls this; an entry function does not. On success, waits until
        the operator has the last state.
        """
        self._end(is_success=is_success, has_ended_well=is_success)

    def _end(self, *, is_success: bool, has_ended_well: bool) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        try:
            self._reporter.flush()
            if is_success and self._feed is not None:
                self._feed.send_end(self._capture(None) if has_ended_well else None)
        finally:
            for each in (self._reader, self._feed):
                if each is not None:
                    each.close()

    def stop(self) -> None:
        """End the process's part because its node says so: as `close`, waiting for no peer.

        No state is kept: the process was stopped anywhere, perhaps in the midst of a step.
        """
        self._end(is_success=True, has_ended_well=False)

    def _make_generators(self) -> Generators:
        """Return the generators that are kept without being named; subclasses add theirs."""
        return Generators()

    def _tick(self) -> None:
        """Do what is due now and then; called often, on the thread that asks for rows."""
        self._reporter.tick()
        self._look_ahead()

    def _convert(self, batch: pa.RecordBatch) -> dict[str, Any]:
        """Make the mapping that `batches` hands out; subclasses override this."""
        return dict(to_numpy(batch, self._nulls))

    def _wait(self, poll: Callable[[float], PollResult | None]) -> PollResult:
        """Call `poll` with a time-out in seconds until it returns something."""
        return cast("PollResult", wait_patiently(poll))

    def _on_batch(self, rows: int) -> None:
        """A batch is about to be handed out."""

    def _on_epoch_ended(self, epoch: int) -> None:
        """Every row of the pass `epoch`, from 0, was handled."""

    def _on_input_ended(self) -> None:
        """Every row of all passes was handled."""

    def _ready(
        self, reader: BatchReader, timeout_s: float | None, *, is_one_pass: bool = False
    ) -> Iterator[pa.RecordBatch]:
        ask = reader.poll if timeout_s is None else bounded_poll(reader, timeout_s, self._clock)
        wait, on_batch = self._wait, self._on_batch
        while True:
            match wait(ask):
                case ReadyBatch(columns, timestamps_ms, _):
                    self._timestamps_ms = timestamps_ms
                    on_batch(columns.num_rows)
                    yield columns
                    del columns  # keep nothing alive while the caller works
                case EpochEnded(epoch):
                    self._on_epoch_ended(epoch)
                    if is_one_pass and epoch + 1 < reader.epochs:
                        return
                case InputEnded():
                    self._on_input_ended()
                    return

    def tell_begun(self) -> None:
        """Tell that the entry function is about to be called; `RoleEntry` does."""
        self._reporter.begin()

    def _progress(self) -> object:
        """Return what changes, beside the row counts, while the process gets on."""
        reader = self._reader
        return (0, 0) if reader is None else (reader.epoch, reader.rows_left)

    def _row_counts(self) -> tuple[int, int]:
        return (0 if self._reader is None else self._reader.rows_in, self._rows_out)
