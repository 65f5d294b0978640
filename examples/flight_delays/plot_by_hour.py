"""Predicted against true delay by hour of departure.

Cell by cell in an editor that knows `# %%`, or as a program, with folders that
`examples.flight_delays.score` had as `--out`: `python -m examples.flight_delays.plot_by_hour
out/flight_delays out/flight_delays_tensorflow`. The picture goes into the first one.
"""

# %% What was predicted
from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd

mpl.use("Agg")
from matplotlib import pyplot as plt

folders = [Path(each) for each in sys.argv[1:]] or [Path("out/flight_delays")]
columns = ["departure_h", "late_min", "predicted_min"]
predictions = {
    folder.name: pd.concat(
        pd.read_csv(path, names=columns)
        for path in sorted((folder / "predictions").rglob("part-*"))
        if path.stat().st_size
    )
    for folder in folders
}

# %% Means of the flights of each hour
by_hour = {
    name: table.groupby(table["departure_h"].round(4).astype(int))[columns[1:]].mean()
    for name, table in predictions.items()
}
for name, means in by_hour.items():
    print(name)
    print(means.round(1).to_string())

# %% The picture
figure, axes = plt.subplots(figsize=(8, 4.5))
truth = next(iter(by_hour.values()))
axes.bar(truth.index, truth["late_min"], color="lightgray", label="true")
for name, means in by_hour.items():
    axes.plot(means.index, means["predicted_min"], marker="o", label=f"predicted: {name}")
axes.set(xlabel="scheduled hour of departure", ylabel="minutes late, mean")
axes.set(title="November and December: flights from New York")
axes.legend()
figure.tight_layout()
figure.savefig(folders[0] / "by_hour.png", dpi=120)
print(folders[0] / "by_hour.png")
