"""Which version of a model lies at a path: told from outside, without reading it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

__all__ = ["ModelVersion", "version_at"]

_File: TypeAlias = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """What lies at a path at one moment. Equal ones are the same version.

    Attributes:
        files: Path of each file, when it was changed in ns since 1970, its bytes and its inode.
        place: Where to read this one to the end: what a link led to, whatever it leads to by
            then. The link itself, where its name ends otherwise than that of the file: some
            readers go by that.
    """

    files: tuple[_File, ...]
    place: Path

    @property
    def changed_ms(self) -> int:
        """When the file that was changed last was changed: milliseconds since 1970."""
        return max(changed_ns for _, changed_ns, _, _ in self.files) // 1_000_000

    @property
    def stands(self) -> bool:
        """Whether it is there as it was, whatever a link leads to by now."""
        return version_at(self.place) == self

    def is_served(self, path: Path) -> bool:
        """Say whether what was read of it since it was found is one version, and the whole.

        Behind a link it also is where it has been removed meanwhile: it was not changed before
        that, and a reader that lacked something would have failed.

        Args:
            path: Where it was found.

        Raises:
            OSError: The file system does not say whether it has been removed.
        """
        return self.stands or (self.place != path and not self.place.exists())


def version_at(path: Path) -> ModelVersion | None:
    """Return the version of a file, or of all files in a directory.

    Links to files are followed, and the path itself; links to directories below it are not.
    None: nothing is there, links lead in a circle, or it changes this moment.
    """
    try:
        place = path.resolve(strict=True)
        found = place.stat()
        if not stat.S_ISDIR(found.st_mode):
            is_named_alike = path.suffix in ("", place.suffix)
            return ModelVersion((_file(place, found),), place if is_named_alike else path)
        files = []
        for folder, _, names in os.walk(place):
            files += [_file(each, each.stat()) for each in map(Path(folder).joinpath, names)]
    except (OSError, RuntimeError):  # the other is what a circle was before Python 3.13
        return None
    return ModelVersion(tuple(sorted(files)), place) if files else None


def _file(path: Path, found: os.stat_result) -> _File:
    return (str(path), found.st_mtime_ns, found.st_size, found.st_ino)
