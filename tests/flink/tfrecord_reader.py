"""The reader of TFRecord files by itself, as Flink's file source makes it, without a job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes
from pyflink.table.types import DataType, _to_java_data_type

from headrace.operator.failure import cause_text

__all__ = ["failure_of_reader", "failure_without_file"]


def failure_of_reader(classes: Any, file: Path, columns: Mapping[str, DataType]) -> str:
    """Read a file to its end, which fails; return the text of the cause.

    Args:
        classes: The fixture.
        file: A TFRecord file.
        columns: Name to type.
    """
    with pytest.raises(Py4JJavaError) as caught:
        _read_all(_open(classes, file, columns))
    return cause_text(caught.value)


def failure_without_file(classes: Any, file: Path, columns: Mapping[str, DataType]) -> Any:
    """Open a file, take it away from its reader, and return the exception of reading on."""
    reader = _open(classes, file, columns)
    _field(_field(reader, "records"), "file").close()
    with pytest.raises(Py4JJavaError) as caught:
        _read_all(reader)
    return caught.value.java_exception


def _field(j_object: Any, name: str) -> Any:
    j_field = j_object.getClass().getDeclaredField(name)
    j_field.setAccessible(True)
    return j_field.get(j_object)


def _read_all(reader: Any) -> None:
    try:
        while reader.readBatch() is not None:
            pass
    finally:
        reader.close()


def _open(classes: Any, file: Path, columns: Mapping[str, DataType]) -> Any:
    """Make the format, whose class is not public, and let it make the reader."""
    row = DataTypes.ROW([DataTypes.FIELD(name, kind) for name, kind in columns.items()])
    j_type = _to_java_data_type(row.not_null()).getLogicalType()
    source = classes.org.apache.flink.connector.file.src
    j_path = classes.org.apache.flink.core.fs.Path(file.as_uri())
    size = file.stat().st_size
    split = source.FileSourceSplit("split", j_path, 0, size, 0, size)
    loader = classes.java.lang.Thread.currentThread().getContextClassLoader()
    j_class = loader.loadClass("org.headrace.tfrecord.TfRecordBulkFormat")
    (constructor,) = j_class.getDeclaredConstructors()
    constructor.setAccessible(True)
    arguments = get_gateway().new_array(classes.java.lang.Object, 2)
    arguments[0] = j_type
    j_format = constructor.newInstance(arguments)
    return j_format.createReader(classes.org.apache.flink.configuration.Configuration(), split)
