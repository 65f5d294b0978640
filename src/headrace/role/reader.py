"""From the queue's items to the batches that an entry function sees."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from pathlib import Path

import pyarrow as pa

from headrace._counts import require_count
from headrace.errors import ConfigError, PlanError, UsageError
from headrace.exchange import (
    Barrier,
    Batch,
    End,
    Feed,
    Rebatcher,
    Watermark,
    stamped,
    unstamped,
)
from headrace.role.barriers import Barriers
from headrace.role.polled import EpochEnded, InputEnded, PollResult, ReadyBatch
from headrace.role.spooled import NEW_ROWS, InputPlace, SpooledPasses, require_such_a_pass

__all__ = ["BatchReader"]

_ATTEND_EVERY_S = 0.005  # in later passes, where a barrier stands between no rows


class _Phase(Enum):
    STREAM = "stream"
    REPLAY = "replay"
    ENDED = "ended"


_REPLAY = _Phase.REPLAY  # looked up for each batch


class BatchReader:
    """Pulls items out of a feed and hands out batches of exactly `rows` rows.

    Every call of `poll` says that all batches handed out before it were handled: their rows are
    used, and what they made was emitted. On that rest three things that the reader does by
    itself, in the next `poll`:

    - A watermark is sent downstream once the rows before it were handled. It cuts no batch
      short.
    - A barrier of a Flink checkpoint cuts: the rows before it come as a shorter batch, and the
      barrier is *reached* when they were handled. Rows behind it are not touched before it is
      over, which `barriers` decides: a `poll` that reaches one that is held returns None at
      once, and later ones wait for it as for rows. So it is in later passes, where a barrier
      stands between no rows.
    - With `epochs` over 1, the rows are spooled to `spool_dir` during the first pass, and later
      passes read the spool. Watermarks then wait for the last pass, since rows of later passes
      would be late behind them.

    So a batch has fewer than `rows` rows only at the end of an epoch, before a barrier, and
    where `allows_short` or `takes_what_is_there` is set.

    Thread model: one thread at a time, the one that uses the feed. `poll` blocks for at most
    its time-out; nothing happens between two calls. The reader does not own the feed; `close`
    it to free the spool.

    Attributes:
        allows_short: True: rows that are there when a `poll` would end without a batch come as
            a shorter one. For a caller that groups the rows itself.
        takes_what_is_there: True: rows that are there come at once, as a shorter batch if they
            are too few; a `poll` waits for the first row only.
        at_once: How many batches a `poll` may hand out together, as one of a multiple of
            `rows`, where they lie ready side by side. For a caller that cuts them itself.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        rows: int,
        epochs: int = 1,
        spool_dir: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_poll: Callable[[], None] = lambda: None,
        barriers: Barriers | None = None,
        restored: InputPlace | None = None,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            feed: Where rows come from and watermarks go to.
            rows: Rows of one batch, at least 1.
            epochs: Passes over the input, at least 1.
            spool_dir: Existing directory for the spool; needed for more than one pass.
            clock: Monotonic seconds.
            on_poll: Called in `settle`, and as a `poll` begins; every 5 ms in later passes.
            barriers: Answers the barriers of `feed`; None: each when it is reached.
            restored: Where to go on; None: with what comes from `feed`.

        Raises:
            ConfigError: `rows` or `epochs` is below 1, or `spool_dir` is missing.
            PlanError: Where to go on is no place in so many passes.
            UsageError: The feed has no input.
        """
        if feed.input_schema is None:
            msg = (
                "This role has no input, so there are no batches to read: give `add_role` an "
                "`input`, or read your own files"
            )
            raise UsageError(msg)
        rows = require_count("rows", rows)
        epochs = require_count("epochs", epochs)
        if epochs > 1 and spool_dir is None:
            msg = f"epochs={epochs} needs a spool_dir for the passes after the first"
            raise ConfigError(msg)
        self.allows_short = False
        self.takes_what_is_there = False
        self._feed = feed
        self._epochs = epochs
        self._barriers = barriers or Barriers(feed)
        self._clock = clock
        self._on_poll = on_poll
        self._rebatcher = Rebatcher(rows)
        self._phase = _Phase.STREAM
        self._streamed_rows = 0
        self._handed_out_rows = 0
        self._handled_rows = 0
        self._is_batch_open = False
        self._latest: ReadyBatch | None = None
        self._watermarks: deque[tuple[int, int]] = deque()  # (rows before it, ms)
        self._barrier: Barrier | None = None
        self._is_end_seen = False
        self._spooled: SpooledPasses | None = None
        if restored is not None:
            require_such_a_pass(restored, epochs)
        if epochs > 1 and spool_dir is not None:
            self._spooled = SpooledPasses(
                spool_dir, feed.input_schema, epochs=epochs, rebatcher=self._rebatcher
            )
            if restored is not None:
                self._spooled.go_on_at(restored)
                self._phase = _Phase.STREAM if restored.is_streaming else _REPLAY
        self._next_attend = -math.inf

    @property
    def epoch(self) -> int:
        """The pass that is being read, from 0; after the last pass, the last."""
        return 0 if self._spooled is None else self._spooled.epoch

    @property
    def epochs(self) -> int:
        """Passes over the input."""
        return self._epochs

    @property
    def has_handled(self) -> bool:
        """Whether new rows were handed out, and all of them were handled."""
        return 0 < self._handled_rows == self._handed_out_rows

    @property
    def is_at_barrier(self) -> bool:
        """Whether no rows come because a barrier waits for other workers."""
        return self._barriers.held is not None

    @property
    def rows(self) -> int:
        """Rows of one batch; what is set counts from the next batch on."""
        return self._rebatcher.rows

    @rows.setter
    def rows(self, rows: int) -> None:
        self._rebatcher.rows = require_count("rows", rows)

    @property
    def at_once(self) -> int:
        """See the class."""
        return self._rebatcher.at_once

    @at_once.setter
    def at_once(self, batches: int) -> None:
        self._rebatcher.at_once = require_count("at_once", batches)

    @property
    def rows_in(self) -> int:
        """Rows of the input handed out so far; later passes over the same rows do not count."""
        return self._handed_out_rows

    @property
    def spool_bytes(self) -> int:
        """Size of the spool; 0 before the end of the first pass, and without one."""
        return 0 if self._spooled is None else self._spooled.size_bytes

    @property
    def rows_left(self) -> int:
        """Rows of a later pass that are still to come; 0 in the first."""
        return 0 if self._spooled is None else self._spooled.rows_left

    @property
    def place(self) -> InputPlace | None:
        """Where to go on once all that was handed out was handled; None with one pass."""
        return None if self._spooled is None else self._spooled.place

    def poll(self, timeout_s: float | None) -> PollResult | None:
        """Take the next batch, or say that a pass or the input has ended.

        Blocks for at most `timeout_s`; see the class for what the call implies.

        Args:
            timeout_s: Longest wait, in seconds; 0 takes only what is there, None waits for as
                long as the other side lives.

        Returns:
            None if no batch became complete within `timeout_s`, or a barrier has just been
            reached that is held: ask again.

        Raises:
            PeerLostError: The other side of the feed is gone.
            ExchangeError: The disk is too small for the spool.
        """
        self._handled_rows = self._handed_out_rows
        self._is_batch_open = False
        if self._phase is _REPLAY:
            assert self._spooled is not None
            self._spooled.begin_pass()
            if self.is_at_barrier:
                self._barriers.watch(timeout_s or 0.0)
            now = self._clock()
            if now >= self._next_attend:
                self.attend()
                self._next_attend = now + _ATTEND_EVERY_S
            if self.is_at_barrier:
                return None
            ready = self._spooled.next_batch()
            self._latest = ready if self.at_once > 1 else None
            self._is_batch_open = ready is not None
            return ready or self._end_epoch()
        self._latest = None
        self._on_poll()
        if self._phase is _Phase.STREAM:
            return self._poll_stream(timeout_s)
        self._answer_barriers()
        return InputEnded()

    def poll_ahead(self) -> ReadyBatch | None:
        """Take the next whole batch of the first pass while earlier ones are being handled.

        Does not block, and says nothing of what was handed out: say so with `settle`, or with
        the next `poll`.

        Returns:
            None if fewer than `rows` rows lie ready, or what comes next needs that the earlier
            ones were handled: `poll` then.
        """
        if self._phase is not _Phase.STREAM:
            return None
        while (rows := self._rebatcher.take()) is None:
            if self._barrier is not None or self._is_end_seen:
                return None
            if not self._receive(self._clock(), says_idle=False):
                return None
        return self._hand_out(rows)

    def settle(self, rows: int) -> None:
        """Say that the first `rows` rows of those not yet settled were handled."""
        self._handled_rows += rows
        self._send_watermarks()
        self._on_poll()

    def attend(self) -> None:
        """Answer what must not wait while the caller waits for something else.

        For a process that is not done: between two passes, after the last, or beside the rows.
        It takes no rows, does not block, and says nothing about the batches handed out: behind
        one it answers no barrier before the next `poll`. While the input streams it answers
        none at all: there, barriers stand between rows.
        """
        self._on_poll()
        if self._phase is not _Phase.STREAM and not self._is_batch_open:
            self._answer_barriers()

    def put_back(self, rows: int) -> None:
        """Take back the last `rows` rows of what the latest `poll` handed out.

        They were not handled, and come again with the next `poll`.
        """
        assert self._latest is not None, "only a batch that was just handed out"
        columns, stamps, _ = self._latest
        kept = columns.num_rows - rows
        rest = Batch(columns.slice(kept), None if stamps is None else stamps.slice(kept))
        self._rebatcher.put_back(stamped(rest))
        self._latest = None
        if self._phase is _Phase.STREAM:
            self._handed_out_rows -= rows
        elif self._spooled is not None:
            self._spooled.put_back(rows)

    def close(self) -> None:
        """Free the spool. Idempotent. Batches that were handed out stay valid."""
        self._latest = None
        if self._spooled is not None:
            self._spooled.close()

    def _poll_stream(self, timeout_s: float | None) -> PollResult | None:
        self._send_watermarks()
        deadline = None if timeout_s is None else self._clock() + timeout_s
        is_late = False
        while True:
            rows = self._rebatcher.take()
            if rows is None and (self._barrier is not None or self._is_end_seen or is_late):
                rows = self._rebatcher.flush()
            if rows is not None:
                return self._hand_out(rows)
            if self._barrier is not None:
                if not self._is_over(self._barrier, deadline):
                    return None
                self._barrier = None
            elif self._is_end_seen:
                return self._end_epoch()
            elif is_late:
                return None
            else:
                has_some = self.takes_what_is_there and self._rebatcher.held_rows > 0
                if not self._receive(self._clock() if has_some else deadline):
                    if not (has_some or self.allows_short):
                        return None
                    is_late = True

    def _is_over(self, barrier: Barrier, deadline: float | None) -> bool:
        """Reach a barrier, or wait at it; a new one is told at once."""
        if self._barriers.held == barrier.checkpoint_id:
            self._barriers.watch(0.0 if deadline is None else deadline - self._clock())
        return self._barriers.reach(barrier.checkpoint_id)

    def _hand_out(self, rows: pa.RecordBatch) -> ReadyBatch:
        self._handed_out_rows += rows.num_rows
        self._is_batch_open = True
        batch = unstamped(rows)
        ready = ReadyBatch(batch.columns, batch.timestamps_ms, 0)
        self._latest = ready if self.at_once > 1 else None  # it keeps the memory
        return ready

    def _receive(self, deadline: float | None, *, says_idle: bool = True) -> bool:
        """Take one item off the feed; return False if none came in time."""
        wait_s = None if deadline is None else max(0.0, deadline - self._clock())
        item = self._feed.receive(timeout_s=wait_s, says_idle=says_idle)
        match item:
            case None:
                return False
            case Batch():
                if self._spooled is not None:
                    self._spooled.write(item)
                self._rebatcher.push(stamped(item))
                self._streamed_rows += item.columns.num_rows
            case Watermark():
                self._watermarks.append((self._streamed_rows, item.timestamp_ms))
                self._send_watermarks()
            case Barrier():
                self._barrier = item
            case End():
                self._is_end_seen = True
        return True

    def _end_epoch(self) -> EpochEnded:
        ended = EpochEnded(self.epoch)
        if self._spooled is not None and self._spooled.end_pass():
            self._phase = _REPLAY
        else:
            self._phase = _Phase.ENDED
            self._send_watermarks()
            if self._feed.output_schema is None:  # else rows may still be emitted
                self._barriers.on_input_over()
        return ended

    def _send_watermarks(self) -> None:
        """Send the latest watermark whose rows were handled in every pass."""
        if self._epochs > 1 and self._phase is not _Phase.ENDED:
            return
        due_ms = None
        while self._watermarks and self._watermarks[0][0] <= self._handled_rows:
            _, due_ms = self._watermarks.popleft()
        if due_ms is not None:
            self._feed.send_watermark(due_ms)

    def _answer_barriers(self) -> None:
        """Reach what came after the end: all rows handed out so far were handled."""
        while (item := self._feed.receive(timeout_s=0)) is not None:
            match item:
                case Barrier():
                    self._barriers.reach(item.checkpoint_id)
                case Watermark():  # behind a restored checkpoint
                    self._watermarks.append((self._streamed_rows, item.timestamp_ms))
                case End() if not self._is_end_seen:
                    self._is_end_seen = True
                case Batch():
                    raise PlanError(NEW_ROWS)
                case _:
                    break
        self._barriers.look()
