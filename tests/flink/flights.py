"""The joins and features of the flight-delay example in pandas, to compare with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from examples.flight_delays.dataset import RawTable

QUARTER = "15min"


def read(table: RawTable) -> pd.DataFrame:
    return pd.read_csv(table.path, names=list(table.columns), na_values=["NA"])


def joined(tables: dict[str, RawTable]) -> pd.DataFrame:
    """The joins of the example in pandas, with the columns that the features stand on."""
    flights, weather, planes = (read(tables[name]) for name in ("flights", "weather", "planes"))
    minute = flights["sched_dep_time"] // 100 * 60 + flights["sched_dep_time"] % 100
    day = pd.to_datetime(flights[["year", "month", "day"]])
    flights["scheduled"] = day + pd.to_timedelta(minute, unit="min")
    flights["quarter"] = flights["scheduled"].dt.floor(QUARTER)
    left = flights[flights["dep_delay"].notna()].copy()
    left["departed"] = left["scheduled"] + pd.to_timedelta(left["dep_delay"], unit="min")
    last = left["departed"].dt.floor(QUARTER) + pd.Timedelta(QUARTER)
    hour = pd.concat([left.assign(quarter=last + n * pd.Timedelta(QUARTER)) for n in range(4)])
    before = hour.groupby(["origin", "quarter"])["dep_delay"].agg(["mean", "max", "count"])
    weather = weather.drop(columns=["year", "month", "day", "hour"])
    planes = planes.rename(columns={"year": "built"})
    arrived = flights[flights["arr_delay"].notna()]
    rows: pd.DataFrame = (
        arrived.merge(planes, on="tailnum")
        .merge(weather, on=["origin", "time_hour"])
        .merge(before.reset_index(), on=["origin", "quarter"])
    )
    return rows


def expected_features(tables: dict[str, RawTable]) -> pd.DataFrame:
    rows = joined(tables)
    hour = rows["sched_dep_time"] // 100 + rows["sched_dep_time"] % 100 / 60
    arrival = rows["sched_arr_time"] // 100 + rows["sched_arr_time"] % 100 / 60
    weekday = (rows["scheduled"].dt.dayofweek + 1) % 7  # 0 is Sunday
    wind = np.deg2rad(rows["wind_dir"])
    columns = {
        "month": rows["month"],
        "departure_sin": np.sin(2 * np.pi * hour / 24),
        "departure_cos": np.cos(2 * np.pi * hour / 24),
        "departure_sin2": np.sin(4 * np.pi * hour / 24),
        "departure_cos2": np.cos(4 * np.pi * hour / 24),
        "arrival_sin": np.sin(2 * np.pi * arrival / 24),
        "arrival_cos": np.cos(2 * np.pi * arrival / 24),
        "weekday_sin": np.sin(2 * np.pi * weekday / 7),
        "weekday_cos": np.cos(2 * np.pi * weekday / 7),
        "wind_north": (rows["wind_speed"] * np.cos(wind)).fillna(0) / 20,
        "wind_east": (rows["wind_speed"] * np.sin(wind)).fillna(0) / 20,
        "wind": rows["wind_speed"].fillna(10).clip(upper=60) / 20,
        "humidity": rows["humid"].fillna(62) / 100,
        "rain": (rows["precip"] * 10).clip(upper=3),
        "haze": (10 - rows["visib"]) / 5,
        "age": (2013 - rows["built"].fillna(2001)).clip(upper=40) / 10,
        "seats": rows["seats"] / 100,
        "distance": rows["distance"] / 1000,
        "airport_late": rows["mean"] / 30,
        "airport_worst": rows["max"] / 30,
        "airport_departures": rows["count"] / 30,
    }
    for name in ("carrier", "origin", "dest"):
        columns[name] = rows[name].map(tables["flights"].values(name).index)
    columns |= {"weekday": weekday, "late_min": rows["arr_delay"]}
    features: pd.DataFrame = pd.DataFrame(columns)
    return features


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Sort by what is a whole number in both: no rounding decides between two flights."""
    angle = np.arctan2(rows["departure_sin"], rows["departure_cos"])
    names = ["late_min", "month", "weekday", "carrier", "origin", "dest"]
    keys = rows[names].assign(
        minute=angle / (2 * np.pi) * 1440 % 1440,
        seats=rows["seats"] * 100,
        distance=rows["distance"] * 1000,
        age=rows["age"] * 10,
        airport_worst=rows["airport_worst"] * 30,
    )
    order = keys.round().reset_index(drop=True).sort_values(list(keys.columns)).index
    ordered: pd.DataFrame = rows.iloc[order].reset_index(drop=True)
    return ordered
