"""From a plain function to the entry of a framework, as a plan does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from headrace._counts import require_count
from headrace.config import RoleConfig
from headrace.errors import ConfigError
from headrace.role import RoleEntry

__all__ = ["Framework", "build_entry", "build_servers"]

Framework: TypeAlias = Literal["pytorch", "tensorflow"]


def build_entry(
    entry: Callable[[Any], object] | RoleEntry,
    framework: Framework | None,
    *,
    epochs: int = 1,
    output_dir: Path | None = None,
) -> RoleEntry:
    """Return what a process of the framework runs; a `RoleEntry` is taken as it is.

    Imports the framework, and no other one.

    Args:
        entry: A function of one argument, the context; or a `RoleEntry`.
        framework: Whose context the function gets; None: a `RoleContext`.
        epochs: Passes over the input where the function names none.
        output_dir: Where `ctx.save` writes.

    Raises:
        ConfigError: `entry` is a `RoleEntry` and there is a framework too; `epochs` or
            `output_dir` is given without a framework that knows them; or the framework is
            unknown.
    """
    if framework not in (None, *get_args(Framework)):
        msg = f"framework={framework!r} must be one of {get_args(Framework)} or None"
        raise ConfigError(msg)
    if framework is None:
        is_set = epochs != 1 or output_dir is not None
        if is_set and not isinstance(entry, RoleEntry):
            msg = (
                f"epochs={epochs} and output_dir={output_dir} are settings of a framework, and "
                "a plain function has none; give framework='pytorch' or 'tensorflow'"
            )
            raise ConfigError(msg)
        return entry if isinstance(entry, RoleEntry) else RoleEntry(entry)
    if isinstance(entry, RoleEntry):
        msg = (
            f"framework={framework!r} is for a plain function, not for {entry!r}; leave it out"
        )
        raise ConfigError(msg)
    if framework == "tensorflow":
        from headrace.tensorflow import TFEntry, TFSettings

        return TFEntry(entry, TFSettings(epochs=epochs, output_dir=output_dir))
    from headrace.pytorch import TorchEntry, TorchSettings

    return TorchEntry(entry, TorchSettings(epochs=epochs, output_dir=output_dir))


def build_servers(
    framework: Framework | None, ps: int, others: Mapping[str, RoleConfig]
) -> dict[str, RoleConfig]:
    """Return the role of `ps` parameter servers, as a plan has it; empty for 0.

    Args:
        framework: Whose servers.
        ps: How many, at least 0.
        others: The roles that the caller describes by itself.

    Raises:
        ConfigError: The framework has no parameter servers, or `others` has some too.
    """
    ps = require_count("ps", ps, least=0)
    if not ps:
        return {}
    if framework != "tensorflow":
        msg = (
            f"ps={ps} is for framework='tensorflow', and this is framework={framework!r}; "
            "describe other servers by `others`"
        )
        raise ConfigError(msg)
    from headrace.tensorflow.cluster import PS
    from headrace.tensorflow.ps_server import server_role

    if PS in others:
        msg = f"ps={ps} and others={{{PS!r}: ...}} both describe that role; give one of them"
        raise ConfigError(msg)
    return {PS: server_role(ps)}
