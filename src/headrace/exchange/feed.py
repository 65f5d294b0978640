"""Where a role's rows come from and go to: the seam between the queue and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import pyarrow as pa

from headrace.exchange.items import Item
from headrace.exchange.state_files import StateFile

__all__ = ["Feed"]


class Feed(Protocol):
    """Rows in and rows out, in stream order.

    `headrace.exchange.Channel` is one (the memory queue); `headrace.exchange.MemoryFeed` is
    another (a table, without Flink).

    Thread model: one thread at a time, of the process that opened it.
    """

    @property
    def input_schema(self) -> pa.Schema | None:
        """Columns that come in, without the hidden timestamp; None if nothing comes in."""

    @property
    def output_schema(self) -> pa.Schema | None:
        """Columns that go out, without the hidden timestamp; None if nothing goes out."""

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        """Take the next item in stream order.

        After `End` only barriers may follow: then this never blocks, and returns a barrier that
        has come, or `End` again.

        Args:
            timeout_s: Longest wait, in seconds; 0 does not wait, None waits for as long as the
                other side lives.
            says_idle: Whether the other side may learn that somebody waits, and send at once
                what it would have kept for a fuller batch.

        Returns:
            None if nothing came in time.

        Raises:
            PeerLostError: The other side is gone.
            UsageError: The role has no input.
        """

    def expect_state(self, size_bytes: int) -> None:
        """Say how large the first state will be, about: memory for it is made meanwhile.

        Blocks for milliseconds at most. Saying it again, larger, is as good; it does nothing
        where a state was taken before.
        """

    def take_state(self, size_bytes: int) -> StateFile:
        """Return memory to write a state of `size_bytes`, at least 1, into.

        Raises:
            ExchangeError: There is not that much memory.
            PeerLostError: The other side is gone.
        """

    def is_aborted(self, checkpoint_id: int) -> bool:
        """Say whether the other side has given that checkpoint up. Does not block.

        For whoever waits with an acknowledgement: nobody wants it any more.

        Raises:
            PeerLostError: The other side is gone.
        """

    def watch(self, *, timeout_s: float) -> None:
        """Wait for anything from the other side, and take no item.

        For whoever waits with an acknowledgement; see `is_aborted`.

        Args:
            timeout_s: Longest wait, in seconds; 0 does not wait.

        Raises:
            PeerLostError: The other side is gone.
        """

    def acknowledge(self, checkpoint_id: int, state: StateFile | None = None) -> None:
        """Say that everything before the barrier `checkpoint_id` was handled and emitted.

        Args:
            checkpoint_id: The barrier's.
            state: What the process is to go on with, should that checkpoint be restored; from
                `take_state`, and not to be touched any more. None: it keeps no state.
        """

    def on_complete(self, call: Callable[[int], object]) -> None:
        """Name who is told of checkpoints that have completed; one at a time.

        Args:
            call: Called with the id of a checkpoint whose barrier was acknowledged, on the
                thread that uses the feed, from within any of its calls. It neither blocks nor
                raises nor uses the feed. Not every one is told of.
        """

    def let_go(self, state: StateFile) -> None:
        """Say that a state, marked with `is_read` before its acknowledgement, is read no more.

        Until then it keeps its content, also when the other side is done with it.
        """

    def decline(self, checkpoint_id: int) -> None:
        """Say that the barrier `checkpoint_id` will not be acknowledged: nobody need wait."""

    def acknowledge_every(self, state: StateFile | None = None) -> None:
        """Say that all rows were handled and none will be emitted: no barrier must wait.

        Args:
            state: As for `acknowledge`; of every later checkpoint.
        """

    def send(self, batch: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> None:
        """Send rows; waits while the other side is behind.

        Args:
            batch: Rows that can be made to fit `output_schema`.
            timestamps_ms: int64, one per row, NULL for none; None if no row has one.

        Raises:
            DataError: The rows do not fit; nothing was sent.
            RowTooLargeError: A row is over `exchange.max_row_bytes`.
            PeerLostError: The other side is gone.
            UsageError: The role has no output, or `send_end` was called.
        """

    def send_watermark(self, timestamp_ms: int) -> None:
        """Say that no later row is older than `timestamp_ms`."""

    def send_end(self, state: StateFile | None = None) -> None:
        """Say that nothing more will be sent. Idempotent.

        Args:
            state: The last one, as for `acknowledge_every`. Waits until the other side has it,
                or is gone.
        """

    def close(self) -> None:
        """Let go of everything. Idempotent. Batches that were received stay valid."""
