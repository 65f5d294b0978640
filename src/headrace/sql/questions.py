"""What the planner asks, as it travels: the WITH options under their own names."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "Column",
    "ModelOptions",
    "ModelQuestion",
    "Question",
    "TrainingOptions",
    "TrainingQuestion",
]


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A declared column.

    Attributes:
        name: Its name.
        type: Its type as Flink prints it, for example "STRING NOT NULL".
    """

    name: str
    type: str


class ModelOptions(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """The options of a `CREATE MODEL`.

    Attributes:
        framework: How the model is read.
        path: File or directory of the model.
        module: "package.module:Class", for a state dict.
        signature: Which signature of a SavedModel to call.
        factory: "package.module:function", for the framework "python".
        inputs: JSON: what of the columns goes into the model.
        error_column: Output column that says why a row has no scores.
        version_column: Output column that says which version of the model scored a row.
        reload_every_ms: Milliseconds between two looks for a new version; None: there are none.
        batch_rows: Most rows in one call of the model.
        linger_ms: How long a batch that is not full waits for more rows, in milliseconds.
        on_error: What becomes of a row that cannot be scored.
        device: What a worker computes on.
        threads: With how many threads a worker computes.
        python_files: Directories and zip files for the Python path.
    """

    framework: Literal["pytorch", "tensorflow", "python"]
    path: str | None = None
    module: str | None = None
    signature: str | None = None
    factory: str | None = None
    inputs: str | None = None
    error_column: str | None = None
    version_column: str | None = None
    reload_every_ms: int | None = None
    batch_rows: int = 1024
    linger_ms: int = 0
    on_error: Literal["fail", "null"] = "fail"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    python_files: tuple[str, ...] = msgspec.field(default=(), name="python.files")


class ModelQuestion(
    msgspec.Struct, frozen=True, kw_only=True, tag="model", forbid_unknown_fields=True
):
    """What the functions of a model carry.

    Attributes:
        name: Name of the model.
        options: Its options.
        inputs: Columns of its INPUT.
        outputs: Columns of its OUTPUT.
    """

    name: str
    options: ModelOptions
    inputs: tuple[Column, ...]
    outputs: tuple[Column, ...]


class TrainingOptions(
    msgspec.Struct, frozen=True, kw_only=True, rename="kebab", forbid_unknown_fields=True
):
    """The options of a `CREATE TABLE` that trains.

    Attributes:
        framework: Which context the entry function gets.
        entry: "package.module:function".
        workers: How many.
        epochs: Passes over the rows.
        output_dir: Directory that `ctx.save` writes to.
        config: JSON object: what `train` of the framework takes beyond that.
        python_files: Directories and zip files for the Python path.
    """

    framework: Literal["pytorch", "tensorflow", "none"]
    entry: str
    workers: int = 1
    epochs: int = 1
    output_dir: str | None = None
    config: str | None = None
    python_files: tuple[str, ...] = msgspec.field(default=(), name="python.files")


class TrainingQuestion(
    msgspec.Struct, frozen=True, kw_only=True, tag="training", forbid_unknown_fields=True
):
    """The ML cluster that an INSERT makes.

    Attributes:
        name: Name of the table.
        options: Its options.
    """

    name: str
    options: TrainingOptions


Question: TypeAlias = ModelQuestion | TrainingQuestion
