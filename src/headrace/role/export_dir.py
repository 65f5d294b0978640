"""Versions of a model in a directory: seen as a whole, with a link to the newest."""

from __future__ import annotations

import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from headrace.role.output_dir import put_in_place, require_writable

__all__ = ["ExportDirectory"]

_LOG = logging.getLogger(__name__)
_HIDDEN = ".headrace-export-"


class ExportDirectory:
    """Files, or directories, `checkpoint-<id><suffix>` and `initial<suffix>`; nothing else.

    `latest<suffix>` is a link to the one that was written last. Others with the same suffix
    that lie there already, of an earlier process or job, count as older than what is written
    now, whatever their numbers.

    Thread model: one thread at a time. One process at a time has a directory.

    Args:
        directory: Where.
        suffix: How the names end; "" for directories.
        keep: How many versions stay, at least 1.
    """

    def __init__(self, directory: Path, *, suffix: str, keep: int) -> None:
        self._directory = directory
        self._suffix = suffix
        self._keep = keep
        self._versions: list[Path] = []  # oldest first

    @property
    def latest(self) -> Path:
        """The link to the newest version."""
        return self._directory / f"latest{self._suffix}"

    @property
    def has_version(self) -> bool:
        """Whether the link leads to something."""
        return self.latest.exists()

    def open(self) -> None:
        """Make the directory, remove what killed processes have left, see what is there.

        Raises:
            ConfigError: It cannot be made or written to.
        """
        require_writable(self._directory, setting="export_to")
        for each in self._directory.glob(f"{_HIDDEN}*"):
            shutil.rmtree(each, ignore_errors=True)
        name = re.compile(rf"(?:checkpoint-\d+|initial){re.escape(self._suffix)}")
        found = [each for each in self._directory.iterdir() if name.fullmatch(each.name)]
        self._versions = sorted(found, key=lambda each: each.lstat().st_mtime_ns)

    def rehearse(self, write: Callable[[Path], object]) -> None:
        """Write a version that nobody sees, and remove it.

        Raises:
            OSError: It could not be written.
        """
        with tempfile.TemporaryDirectory(
            dir=self._directory, prefix=_HIDDEN, ignore_cleanup_errors=True
        ) as name:
            write(Path(name) / f"rehearsal{self._suffix}")

    def put(self, stem: str, write: Callable[[Path], object]) -> Path:
        """Add a version and make it the latest; then remove the oldest above `keep`.

        Args:
            stem: Its name without the suffix; one of this name is replaced.
            write: Makes a file or directory at the path given, complete and on the disk.

        Returns:
            Its path.

        Raises:
            OSError: It could not be written. Nothing of it is to be seen.
        """
        with tempfile.TemporaryDirectory(
            dir=self._directory, prefix=_HIDDEN, ignore_cleanup_errors=True
        ) as name:
            place = Path(name)
            draft = place / f"{stem}{self._suffix}"
            write(draft)
            version = self._directory / draft.name
            put_in_place(draft, version, aside=place / "former")  # one of another job
            link = place / "link"
            link.symlink_to(version.name)
            link.replace(self.latest)
            self._versions = [each for each in self._versions if each != version]
            self._versions.append(version)
            self._remove_old(place)
        return version

    def _remove_old(self, place: Path) -> None:
        """Hide what is too old; it goes with the hidden directory."""
        while len(self._versions) > self._keep:
            old = self._versions.pop(0)
            try:
                old.replace(place / f"old-{old.name}")
            except FileNotFoundError:
                pass
            except OSError as exc:
                _LOG.warning("%s is no longer needed and cannot be removed: %s", old, exc)
