"""Teaches the JVM of the tests a file system that Python cannot read: `shelf:///path`."""

from __future__ import annotations

from pathlib import Path

from pyflink.java_gateway import get_gateway
from pyflink.util.java_utils import add_jars_to_context_class_loader

from .java_classes import jar_of

__all__ = ["add_shelf"]

_CLASS = "org.headrace.process.ShelfFileSystemFactory"
_SERVICE = "org.apache.flink.core.fs.FileSystemFactory"


def add_shelf(folder: Path) -> None:
    """Register the file system, which is compiled into `folder`, with Flink. It stays."""
    add_jars_to_context_class_loader([jar_of(_CLASS, _SERVICE, folder).as_uri()])
    jvm = get_gateway().jvm
    file_systems = jvm.org.apache.flink.core.fs.FileSystem
    configuration = jvm.org.apache.flink.configuration.Configuration()
    file_systems.initialize(configuration, None)
