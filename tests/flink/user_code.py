"""Entry functions that misbehave. They travel to the processes by value."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from tests.waiting import live_until_ended

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Entry = Callable[[Any], object]


class SecondWorker:
    """Runs `entry` in the worker with index 1, after its last words; the others only read."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def __call__(self, ctx: Any) -> None:
        if ctx.index == 1:
            say(f"last words of {ctx.role}-{ctx.index}")
            self.entry(ctx)
        else:
            for _ in ctx.arrow_batches():
                pass


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def raises(ctx: Any) -> None:
    try:
        dict[str, int]()["no such key"]
    except KeyError as exc:
        msg = f"{ctx.role} cannot learn"
        raise ValueError(msg) from exc


def exits_with_a_number(ctx: Any) -> None:
    sys.exit(3)


def exits_with_a_text(ctx: Any) -> None:
    sys.exit("out of ideas")


def exits_at_once(ctx: Any) -> None:
    os._exit(7)


def faults(ctx: Any) -> None:
    ctypes.string_at(0)


def aborts(ctx: Any) -> None:
    os.abort()


def is_killed(ctx: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def runs_into_a_memory_limit(ctx: Any) -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 64 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    bytearray(1024 * 1024 * 1024)


def recurses(ctx: Any) -> None:
    recurses(ctx)


class Unpicklable(Exception):  # noqa: N818 - not an error class of ours
    def __reduce__(self) -> tuple[Any, ...]:
        msg = "this exception does not pickle"
        raise TypeError(msg)


def raises_what_does_not_pickle(ctx: Any) -> None:
    error = Unpicklable("holds a lock")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def raises_a_huge_message(ctx: Any) -> None:
    raise ValueError("begins " + "x" * 10_000_000 + " ends")


class Mute(Exception):  # noqa: N818 - not an error class of ours
    def __str__(self) -> str:
        msg = "no text"
        raise RuntimeError(msg)


def raises_what_has_no_text(ctx: Any) -> None:
    raise Mute


def writes_bytes_that_are_no_text(ctx: Any) -> None:
    os.write(1, b"odd\xe9 \xff\xfe\x00 \xf0\x9f\n")
    msg = "odd\udce9"  # a surrogate, as os.fsdecode makes them
    raise ValueError(msg)


def is_interrupted(ctx: Any) -> None:
    raise KeyboardInterrupt


class NotEvenAnException(BaseException):
    pass


def raises_no_exception(ctx: Any) -> None:
    msg = "base only"
    raise NotEvenAnException(msg)


def prints_a_million_lines(ctx: Any) -> None:
    for start in range(0, 1_000_000, 10_000):
        sys.stdout.write("".join(f"line {start + i}\n" for i in range(10_000)))
    say(f"last words of {ctx.role}-{ctx.index}")
    sys.exit(5)


def writes_without_a_newline(ctx: Any) -> None:
    for _ in range(100):
        os.write(2, b"y" * 100_000)
    os.write(1, b"no newline here")
    os._exit(6)


def closes_its_output_and_raises(ctx: Any) -> None:
    sys.stdout.close()
    sys.stderr.close()
    os.close(1)
    os.close(2)
    msg = "nobody hears"
    raise ValueError(msg)


def closes_every_file_and_raises(ctx: Any) -> None:
    os.closerange(3, 1024)
    msg = "no way out"
    raise ValueError(msg)


def starts_threads_without_end_and_raises(ctx: Any) -> None:
    for number in range(3):
        threading.Thread(target=live_until_ended, name=f"endless-{number}").start()
    msg = "threads go on"
    raise ValueError(msg)


def forks_and_raises_in_both(ctx: Any) -> None:
    is_parent = os.fork() != 0
    msg = f"raised in the {'parent' if is_parent else 'fork'}"
    raise ValueError(msg)


def leaves_a_fork_and_raises(ctx: Any) -> None:
    if os.fork() == 0:
        os.setsid()
        signal.pause()
    msg = "a fork is left"
    raise ValueError(msg)


def changes_the_directory_and_raises(ctx: Any) -> None:
    os.chdir("/")
    for name in list(os.environ):  # noqa: TID251 - what user code may do
        del os.environ[name]  # noqa: TID251
    msg = "lost in /"
    raise ValueError(msg)


def blocks_every_signal_and_raises(ctx: Any) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    with contextlib.suppress(OSError, ValueError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    msg = "deaf"
    raise ValueError(msg)


def runs_out_of_memory(ctx: Any) -> None:
    """Let the kernel end this process: it joins a small memory group and takes too much."""
    (Path(ctx.options["group"]) / "cgroup.procs").write_text(str(os.getpid()))
    held = [bytearray(b"x" * 1_000_000) for _ in range(1000)]
    say(f"this cannot be: {len(held)}")


class Reads:
    """Misbehaves, and reads its whole input all the same."""

    def __init__(self, entry: Entry, *, is_before: bool = True) -> None:
        self.entry = entry
        self.is_before = is_before

    def __call__(self, ctx: Any) -> None:
        if self.is_before:
            self.entry(ctx)
        rows = 0
        for batch in ctx.arrow_batches(rows=100):
            rows += batch.num_rows
            ctx.emit({"id": batch.column("id"), "role": [ctx.role] * batch.num_rows})
        ctx.report(rows=rows)
        if not self.is_before:
            self.entry(ctx)


def exits_with_success(ctx: Any) -> None:
    sys.exit(0)


def closes_its_output(ctx: Any) -> None:
    sys.stdout.close()
    os.close(1)
    os.close(2)


def leaves_threads(ctx: Any) -> None:
    for number in range(3):
        threading.Thread(target=live_until_ended, name=f"endless-{number}").start()


def leaves_a_fork(ctx: Any) -> None:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)


def returns_twice(ctx: Any) -> None:
    os.fork()


def uses_its_context_in_a_fork(ctx: Any) -> None:
    """Each use fails in the fork, and the parent goes on as if nothing had been."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        uses = {
            "emit": lambda: ctx.emit({"id": [-1], "role": ["fork"]}),
            "batches": lambda: next(ctx.arrow_batches(rows=1)),
            "publish": lambda: ctx.publish("key", "of the fork"),
            "stop_job": lambda: ctx.stop_job("by the fork"),
        }
        for name, use in uses.items():
            os.write(write_end, f"{name} {_error_of(use)}\n".encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as refused:
        ctx.report(refused=sum(line.endswith("UsageError\n") for line in refused))
    os.waitpid(pid, 0)


def _error_of(use: Callable[[], object]) -> str:
    try:
        use()
    except Exception as exc:  # noqa: BLE001 - told to the parent
        return type(exc).__name__
    return "nothing"


def uses_pools(ctx: Any) -> None:
    import math
    import multiprocessing

    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(math.factorial, range(6)) == [1, 1, 2, 6, 24, 120]
    multiprocessing.get_context("fork").Process(target=signal.pause).start()  # never joined


def changes_where_it_is(ctx: Any) -> None:
    os.chdir("/")
    os.environ.clear()  # noqa: TID251 - what user code may do
    sys.path.clear()


def ignores_sigterm(ctx: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def prints_a_lot(ctx: Any) -> None:
    for number in range(100_000):
        sys.stdout.write(f"line {number}\n")
    sys.stdout.write("no newline")


def waits_deaf_to_sigterm(ctx: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Path(ctx.options["mark"]).touch()
    live_until_ended()
