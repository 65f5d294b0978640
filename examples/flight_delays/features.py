"""Feature engineering in Flink SQL: from text to the numbers that a model takes.

What is predicted: how late a flight arrives, in minutes, from what is known at the start of the
quarter hour that it is to leave in: schedule, weather, aircraft, and the airport's departures
of the hour before, since delays spread. Three in ten flights have left some minutes early by
then and are among those departures themselves; they are known at that time as well.

Every join is an inner join: in Flink's streaming mode a regular outer join is an updating
table, which training refuses. Left out are therefore flights that never arrived, of aircraft
that the registry does not know, without a weather report, or before the first departure of a
day.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pyflink.table import StreamTableEnvironment, Table

from examples.flight_delays.dataset import RawTable

__all__ = [
    "CODES",
    "HOUR_MIN",
    "LAST_TRAINING_MONTH",
    "NUMBERS",
    "create_feature_files",
    "create_features",
    "held_out_rows",
    "training_rows",
]

LAST_TRAINING_MONTH = 10
"""January to October are trained on; November and December are held out."""

NUMBERS = {
    "departure_sin": "SIN(2 * PI * departure_h / 24)",
    "departure_cos": "COS(2 * PI * departure_h / 24)",
    "departure_sin2": "SIN(4 * PI * departure_h / 24)",
    "departure_cos2": "COS(4 * PI * departure_h / 24)",
    "arrival_sin": "SIN(2 * PI * arrival_h / 24)",
    "arrival_cos": "COS(2 * PI * arrival_h / 24)",
    "weekday_sin": "SIN(2 * PI * weekday / 7)",
    "weekday_cos": "COS(2 * PI * weekday / 7)",
    "wind_north": "COALESCE(wind_mph * COS(RADIANS(wind_deg)), 0) / 20",
    "wind_east": "COALESCE(wind_mph * SIN(RADIANS(wind_deg)), 0) / 20",
    "wind": "LEAST(COALESCE(wind_mph, 10), 60) / 20",
    "humidity": "COALESCE(humidity_pct, 62) / 100",
    "rain": "LEAST(rain_in * 10, 3)",
    "haze": "(10 - visibility_mi) / 5",
    "age": "LEAST(2013 - COALESCE(built, 2001), 40) / 10",
    "seats": "seats / 100",
    "distance": "distance_mi / 1000",
    "airport_late": "airport_late_min / 30",
    "airport_worst": "airport_worst_min / 30",
    "airport_departures": "airport_departures / 30",
}
"""Numeric features: name to SQL, scaled to about -3 to 3."""

CODES = ("carrier", "origin", "dest", "weekday")
"""Categories; each comes as a number from 0."""

HOUR_MIN = 60.0
"""Delays come in minutes; networks work best with values of about 1."""

_RAW = """
CREATE TEMPORARY TABLE raw_{name} ({columns}{more})
WITH ('connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{path}')
"""

_SCHEDULED = """TO_TIMESTAMP(
        `year` || '-' || LPAD(`month`, 2, '0') || '-' || LPAD(`day`, 2, '0')
        || ' ' || LPAD(sched_dep_time, 4, '0'), 'yyyy-MM-dd HHmm')"""

# A flight of the file leaves at most a day after its place in the schedule, so a day is how
# long the windows have to wait for late departures. Cancelled flights have no delay.
_FLIGHT_TIMES = f""",
    scheduled AS {_SCHEDULED},
    departed AS TIMESTAMPADD(
        MINUTE, COALESCE(CAST(NULLIF(dep_delay, 'NA') AS INT), 0), {_SCHEDULED}),
    WATERMARK FOR departed AS departed - INTERVAL '1' DAY
"""

_VIEWS = {
    "flights": """
        SELECT CAST(`month` AS INT) AS `month`, origin, dest, carrier, tailnum, time_hour,
            CAST(arr_delay AS FLOAT) AS late_min,
            CAST(distance AS FLOAT) AS distance_mi,
            CAST(sched_dep_time AS INT) / 100 + MOD(CAST(sched_dep_time AS INT), 100) / 60.0E0
                AS departure_h,
            CAST(sched_arr_time AS INT) / 100 + MOD(CAST(sched_arr_time AS INT), 100) / 60.0E0
                AS arrival_h,
            CAST(DAYOFWEEK(CAST(scheduled AS DATE)) AS INT) - 1 AS weekday,
            TIMESTAMPADD(MINUTE, -MOD(MOD(CAST(sched_dep_time AS INT), 100), 15), scheduled)
                AS quarter
        FROM raw_flights WHERE arr_delay <> 'NA'""",
    "weather": """
        SELECT origin, time_hour,
            CAST(NULLIF(wind_dir, 'NA') AS FLOAT) AS wind_deg,
            CAST(NULLIF(wind_speed, 'NA') AS FLOAT) AS wind_mph,
            CAST(NULLIF(humid, 'NA') AS FLOAT) AS humidity_pct,
            CAST(precip AS FLOAT) AS rain_in,
            CAST(visib AS FLOAT) AS visibility_mi
        FROM raw_weather""",
    "planes": """
        SELECT tailnum,
            CAST(NULLIF(`year`, 'NA') AS FLOAT) AS built,
            CAST(seats AS FLOAT) AS seats
        FROM raw_planes""",
    "departures": """
        SELECT origin, departed, CAST(dep_delay AS FLOAT) AS late_min
        FROM raw_flights WHERE dep_delay <> 'NA'""",
    "airports_before": """
        SELECT origin, window_end AS quarter, AVG(late_min) AS airport_late_min,
            MAX(late_min) AS airport_worst_min, CAST(COUNT(*) AS FLOAT) AS airport_departures
        FROM TABLE(HOP(TABLE departures, DESCRIPTOR(departed),
            INTERVAL '15' MINUTES, INTERVAL '1' HOUR))
        GROUP BY origin, window_start, window_end""",
    "joined": """
        SELECT * FROM flights
        JOIN planes USING (tailnum)
        JOIN weather USING (origin, time_hour)
        JOIN airports_before USING (origin, quarter)""",
}


def create_features(t_env: StreamTableEnvironment, tables: Mapping[str, RawTable]) -> None:
    """Define the view `features`: the month, all `NUMBERS` and `CODES`, and `late_min`.

    Nothing runs yet. However many queries read the view, the joins run once per job: it stands
    on a DataStream, which Flink shares, whereas the planner would repeat the query of a view.

    Args:
        t_env: In streaming mode.
        tables: What `raw_tables` has written.
    """
    for name, table in tables.items():
        columns = ", ".join(f"`{column}` STRING" for column in table.columns)
        more = _FLIGHT_TIMES if name == "flights" else ""
        t_env.execute_sql(_RAW.format(name=name, columns=columns, more=more, path=table.path))
    for name, query in _VIEWS.items():
        t_env.create_temporary_view(name, t_env.sql_query(query))
    flights = tables["flights"]
    columns = ", ".join(
        [
            *(f"CAST({sql} AS FLOAT) AS {name}" for name, sql in NUMBERS.items()),
            *(f"{_code(name, flights)} AS {name}" for name in CODES if name != "weekday"),
        ]
    )
    joined = t_env.sql_query(f"SELECT `month`, {columns}, weekday, late_min FROM joined")
    shared = t_env.from_data_stream(t_env.to_data_stream(joined))
    t_env.create_temporary_view("features", shared)


def create_feature_files(t_env: StreamTableEnvironment, directory: Path) -> None:
    """Define the table `feature_files`: CSV in `directory` with the columns of `features`."""
    floats = ", ".join(f"{name} FLOAT" for name in NUMBERS)
    codes = ", ".join(f"{name} INT" for name in CODES)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE feature_files "
        f"(`month` INT, {floats}, {codes}, late_min FLOAT) WITH "
        f"('connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{directory}')"
    )


def training_rows(t_env: StreamTableEnvironment) -> Table:
    """Return what to train on: `numbers` ARRAY<FLOAT>, `codes` ARRAY<INT>, `late_min` FLOAT."""
    return _rows_where(t_env, f"`month` <= {LAST_TRAINING_MONTH}")


def held_out_rows(t_env: StreamTableEnvironment) -> Table:
    """Return the other rows, with the same columns."""
    return _rows_where(t_env, f"`month` > {LAST_TRAINING_MONTH}")


def _rows_where(t_env: StreamTableEnvironment, condition: str) -> Table:
    numbers, codes = ", ".join(NUMBERS), ", ".join(CODES)
    return t_env.sql_query(
        f"SELECT ARRAY[{numbers}] AS numbers, ARRAY[{codes}] AS codes, late_min "
        f"FROM features WHERE {condition}"
    )


def _code(column: str, table: RawTable) -> str:
    """Return SQL for the place of a column's value among all its values, all of one length."""
    values = table.values(column)
    width = len(values[0]) + 1
    return f"(POSITION({column} IN '{','.join(values)}') - 1) / {width}"
