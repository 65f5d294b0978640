"""Runs TensorBoard on the node's port."""

from __future__ import annotations

from typing import ClassVar

from headrace.errors import ConfigError
from headrace.framework.runner.base import EntryKind, Runner, RunnerCommand, RunnerContext

__all__ = ["TensorBoardRunner"]


class TensorBoardRunner(Runner):
    """Starts the real TensorBoard over the directory `options["log_dir"]`, until SIGTERM.

    The role's `args` are further flags of TensorBoard. Two choices are made for it, with
    figures of a machine with two busy cores and one small run:

    - It does without TensorFlow, also where that is installed, and reads event files by its own
      stand-in: it answers after 3 to 4 s and holds 80 MB, instead of 14 to 21 s and 660 MB. A
      `log_dir` that only TensorFlow's own file systems can read (`hdfs://`) is not seen.
    - `--load_fast=false`: the runs are read in the same process. The data server that reads
      faster is a second process, native and experimental; it gains two seconds at the start.
    """

    entry_kind: ClassVar[EntryKind] = "none"
    needs_port: ClassVar[bool] = True
    url_scheme: ClassVar[str | None] = "http"
    needed_options: ClassVar[tuple[str, ...]] = ("log_dir",)

    def command(self, context: RunnerContext) -> RunnerCommand:
        """Return the command.

        Raises:
            ConfigError: The node has no port, or `options` no log_dir.
        """
        spec = context.spec
        log_dir = spec.options.get("log_dir")
        if spec.port is None or not isinstance(log_dir, str):
            msg = (
                "runner='tensorboard' needs a port and options['log_dir'], the directory that "
                f"it shows; it got port={spec.port} and log_dir={log_dir!r}"
            )
            raise ConfigError(msg)
        return RunnerCommand(
            argv=(
                context.python,
                *("-u", "-m", "headrace.framework.runner.board"),
                *("--logdir", log_dir),
                *("--host", spec.host),
                *("--port", str(spec.port)),
                "--load_fast=false",
                *context.args,
            )
        )
