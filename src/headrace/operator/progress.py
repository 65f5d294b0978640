"""What `JobHandle.wait` shows: a live line on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from headrace.framework.status import JobStatus

__all__ = ["Progress"]


class _Bar(tqdm):  # type: ignore[type-arg] # generic only in its stubs
    monitor_interval = 0  # the refreshes come from wait(): no thread of tqdm's own


class Progress:
    """Shows one job's status.

    Thread model: one thread. `update` never raises because of the terminal and never waits.

    Args:
        job_name: Shown in front.
        stream: Where to write.
        clock: Monotonic seconds.
        line_every_s: Pause between two lines when `stream` is no terminal.
    """

    def __init__(
        self,
        job_name: str,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        line_every_s: float = 10.0,
    ) -> None:
        self._job_name = job_name
        self._stream = stream or sys.stderr
        self._clock = clock
        self._line_every_s = line_every_s
        self._started_at = clock()
        self._next_line_at = self._started_at + line_every_s
        self._told_urls: set[str] = set()
        self._bar: _Bar | None = None
        if self._stream.isatty():
            self._bar = _Bar(
                desc=job_name,
                unit=" rows",
                unit_scale=True,
                file=self._stream,
                dynamic_ncols=True,
            )

    def update(self, status: JobStatus) -> None:
        """Show `status`; in a log only when a line is due. A new URL is shown at once."""
        self._tell_urls(status)
        if self._bar is not None:
            self._bar.set_postfix_str(_figures(status), refresh=False)
            self._bar.update(max(0, status.rows_in - self._bar.n))
            self._bar.refresh()
        elif self._clock() >= self._next_line_at:
            self._next_line_at = self._clock() + self._line_every_s
            self._write_line(status)

    def close(self, status: JobStatus) -> None:
        """Show the end; calling it twice shows it twice."""
        if self._bar is not None:
            self.update(status)
            self._bar.close()
        else:
            self._write_line(status)

    def _tell_urls(self, status: JobStatus) -> None:
        for name, node in status.nodes.items():
            if node.url is None or node.url in self._told_urls or node.state != "running":
                continue
            self._told_urls.add(node.url)
            line = f"{self._job_name}: {name} serves {node.url}"
            if self._bar is not None:
                self._bar.write(line, file=self._stream)
            else:
                self._stream.write(f"{line}\n")
                self._stream.flush()

    def _write_line(self, status: JobStatus) -> None:
        elapsed_s = max(self._clock() - self._started_at, 1e-9)
        rate = status.rows_in / elapsed_s
        self._stream.write(
            f"{self._job_name}: {status.rows_in:,} rows, {rate:,.0f} rows/s, "
            f"{_figures(status)}\n"
        )
        self._stream.flush()


def _figures(status: JobStatus) -> str:
    parts = [status.state]
    if status.state in ("STARTING", "GATHERING"):
        expected = "?" if status.expected is None else status.expected
        parts.append(f"{status.registered}/{expected} nodes")
    names = sorted({name for node in status.nodes.values() for name in node.report})
    for name in names[:6]:
        value = status.mean(name)
        if value is not None:
            parts.append(f"{name}={value:.4g}")
    parts.append(f"restarts={status.restarts}")
    return ", ".join(parts)
