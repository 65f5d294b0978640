"""TFRecord files as Flink tables, and tables as TFRecord files; see docs/guide/tfrecord.md.

Rows are `tf.train.Example` records, each column the feature of its name. Files are read and
written inside Flink's JVM: neither TensorFlow nor a cluster of ours is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["add_format", "read", "write"]


def add_format(t_env: Any) -> None:
    """Make `'format' = 'tfrecord'` known to the SQL of a table environment.

    `read` and `write` do so themselves. Doing it twice is harmless.

    Args:
        t_env: A PyFlink table environment of any kind, in streaming or batch mode.

    Raises:
        PlanError: `t_env` is something else, or Headrace's jar is not there.

    Example:
        >>> tfrecord.add_format(t_env)  # doctest: +SKIP
        >>> t_env.execute_sql(
        ...     "CREATE TABLE samples (x FLOAT) WITH ('connector' = 'filesystem', "
        ...     "'path' = '...', 'format' = 'tfrecord')"
        ... )  # doctest: +SKIP
    """
    from headrace.operator import tfrecord  # imports pyflink

    tfrecord.add_tfrecord_format(t_env)


def read(
    t_env: Any,
    path: str | Path,
    schema: Any,
    *,
    partitioned_by: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> Any:
    """Read TFRecord files as a table. Nothing is opened before the job runs.

    Files are read in parallel, each by one task; how they are compressed is found out for each.
    A feature that a record lacks is NULL, features that no column names are left out. A damaged
    file, or a feature that does not fit its column, fails the job with the file's name and the
    byte where the record begins.

    Args:
        t_env: A PyFlink table environment of any kind, in streaming or batch mode.
        path: A directory, whose files are read with those of its subdirectories, or one file;
            a URI of a Flink file system, or a local path. Names that begin with `.` or `_` are
            passed over.
        schema: The columns: `{"x": DataTypes.FLOAT(), ...}` or a `DataTypes.ROW([...])`. A
            feature with one value per record is a column of it, one with several an ARRAY.
        partitioned_by: Columns of `schema` that are not in the records but in the names of
            directories, as in `day=2026-11-26`.
        options: Further options of Flink's filesystem connector, for example
            `{"source.monitor-interval": "10 s"}` for new files without end.

    Returns:
        The rows, as a PyFlink table.

    Raises:
        PlanError: A column has a type that no feature can be read into, or `t_env` or `schema`
            is something else.

    Source: `tf.train.Example` (tensorflow/core/example/feature.proto); docs/adr/0088, 0089.
    """
    from headrace.operator import tfrecord  # imports pyflink

    return tfrecord.read_tfrecord(
        t_env, path, schema, partitioned_by=partitioned_by, options=options or {}
    )


def write(
    table: Any,
    path: str | Path,
    *,
    compression: Literal["NONE", "GZIP", "ZLIB"] = "NONE",
    narrow_doubles: bool = False,
    partitioned_by: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> Any:
    """Plan that a table is written as TFRecord files. Nothing runs yet.

    Finished files are named `part-...`; others are hidden (`.part-...`). In streaming mode a
    file is finished at the next checkpoint, or at the end of a bounded input, and each row is
    in finished files exactly once, also after failures.

    Args:
        table: The rows; insert-only.
        path: The directory to write into; a URI of a Flink file system, or a local path.
        compression: Of whole files, as `tf.data.TFRecordDataset(compression_type=...)` takes
            it.
        narrow_doubles: Whether DOUBLE columns are written although features hold 32-bit
            floats. False: they are refused.
        partitioned_by: Columns that become names of directories, `day=2026-11-26`, and are not
            in the records.
        options: Further options of Flink's filesystem connector, for example
            `{"sink.rolling-policy.file-size": "256 MB"}`.

    Returns:
        PyFlink's `TablePipeline`: `.execute()` runs it alone, `statements.add(...)` adds it to
        a statement set, also to one that `Cluster.submit` takes.

    Raises:
        PlanError: A column has a type that a feature cannot hold, or `table` is something else.
        ConfigError: `compression` is unknown.

    Source: as `read`.
    """
    from headrace.operator import tfrecord  # imports pyflink

    return tfrecord.write_tfrecord(
        table,
        path,
        compression=compression,
        narrow_doubles=narrow_doubles,
        partitioned_by=partitioned_by,
        options=options or {},
    )
