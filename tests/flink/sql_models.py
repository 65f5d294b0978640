"""`CREATE MODEL` statements, and the Python files that they name things in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyflink.table import StreamTableEnvironment

import headrace.sql

__all__ = ["create_model", "in_flight", "python_model", "write_module"]

MODULE = '''
import os
import signal
from pathlib import Path

HERE = Path(__file__).parent


def halves():
    """Returns half of `id`, and the number of rows in the call."""

    def score(columns):
        rows = len(columns["id"])
        return {"half": columns["id"] * 0.5, "batch": columns["id"] * 0 + rows}

    return score


def echoes():
    def score(columns):
        return {"t2": [f"{text}!" for text in columns["t"]], "n2": columns["n"]}

    return score


def sees_gpus():
    def score(columns):
        return [os.environ.get("CUDA_VISIBLE_DEVICES", "unset") for _ in columns["id"]]

    return score


def times(path):
    """Multiplies by the number in a file, and leaves a file that tells of its being read."""
    factor = int(path.read_text())
    (HERE / f"read-{factor}").touch()
    return lambda columns: columns["id"] * factor


def dies_once():
    """Kills its process once, when it has seen two checkpoints complete."""
    first = HERE / f"first-{os.getpid()}"
    seen = set()

    def score(columns):
        if not first.exists():
            first.write_text(str(columns["id"][0]))
        seen.update(path.parent for path in HERE.glob("cp/*/chk-*/_metadata"))
        if len(seen) > 1 and not (HERE / "died").exists():
            (HERE / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return columns["id"] * 0.5

    return score


def kills_itself():
    def score(columns):
        os.kill(os.getpid(), signal.SIGKILL)

    return score


def kills_its_node():
    def score(columns):
        os.kill(os.getppid(), signal.SIGKILL)
        return columns["id"] * 0.5

    return score


def refuses():
    def score(columns):
        if (columns["id"] == 7).any():
            raise ValueError("seven is no number of ours")
        return columns["id"] * 0.5

    return score


def count(ctx):
    rows = sum(len(batch["id"]) for batch in ctx.batches(rows=64))
    (HERE / f"{ctx.role}-{ctx.index}").write_text(str(rows))


def sleeps():
    import time

    def score(columns):
        (HERE / "scoring").touch()
        time.sleep(600)

    return score
'''


NET_MODULE = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        )

    def forward(self, x):
        return self.layers(x)
"""


def write_module(folder: Path) -> dict[str, str]:
    """Write `user_models` and `user_nets`; return the option with which a model finds them."""
    folder.joinpath("user_models.py").write_text(MODULE)
    folder.joinpath("user_nets.py").write_text(NET_MODULE)
    return {"python.files": str(folder)}


def create_model(
    t_env: StreamTableEnvironment, name: str, inputs: str, outputs: str, options: dict[str, Any]
) -> None:
    """Create a model of this provider."""
    headrace.sql.add_jars(t_env)
    chosen = {"provider": "headrace", **options}
    given = ", ".join(f"'{key}' = '{value}'" for key, value in chosen.items())
    t_env.execute_sql(f"CREATE MODEL {name} INPUT ({inputs}) OUTPUT ({outputs}) WITH ({given})")


def python_model(
    t_env: StreamTableEnvironment,
    folder: Path,
    factory: str,
    outputs: str = "half DOUBLE",
    **options: Any,
) -> None:
    """Create the model `m` of one of the functions of `user_models`, with the INPUT `id`."""
    named = {key.replace("_", "-"): value for key, value in options.items()}
    chosen = {"framework": "python", "factory": f"user_models:{factory}", **named}
    create_model(t_env, "m", "id BIGINT", outputs, {**write_module(folder), **chosen})


def in_flight(rows: int) -> dict[str, str]:
    """Return the Flink option with so many rows in flight, for `make_t_env`."""
    return {"table_exec_async__ml__predict_max__concurrent__operations": str(rows)}
