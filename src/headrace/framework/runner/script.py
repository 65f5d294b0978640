"""Runs a Python script of the user's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from headrace.errors import ConfigError
from headrace.framework.runner.base import EntryKind, Runner, RunnerCommand, RunnerContext

__all__ = ["ScriptRunner"]


class ScriptRunner(Runner):
    """Starts `python -u SCRIPT ARGS`.

    The script finds its facts in the file that HEADRACE_PROCESS_SPEC names; it may use
    `read_process_spec` and `ProcessLink`, and need not know Headrace at all.
    """

    entry_kind: ClassVar[EntryKind] = "script"

    def command(self, context: RunnerContext) -> RunnerCommand:
        """Return the command.

        Raises:
            ConfigError: There is no such script here.
        """
        return RunnerCommand(argv=(context.python, "-u", _find(context.script), *context.args))


def _find(script: str | None) -> str:
    if script is None:
        msg = "role.runner='script' needs the path of a script as role.entry"
        raise ConfigError(msg)
    places = [Path.cwd(), *(Path(place) for place in sys.path)]
    for place in places:
        if (place / script).is_file():
            return str((place / script).absolute())
    msg = (
        f"There is no script {script!r} here: not in {Path.cwd()} and not on the Python path. "
        "Ship it with add_python_file, or give the absolute path of a file on every host."
    )
    raise ConfigError(msg)
