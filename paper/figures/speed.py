"""Figure of what a training step costs, against a dense step of the same network and seed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas
from matplotlib.figure import Figure

from paper.figures.canvas import Plot
from paper.figures.style import Look, grid
from paper.rows.summary import GROUP, aggregate, training_seconds


def plots(rows: pandas.DataFrame, look: dict[str, Look]) -> Iterator[Plot]:
    """Time per step ratio for each dataset where dense steps were timed.

    Args:
        rows: Tidy rows (`summary.read_rows`).
        look: Of each method of the table.
    """
    data = ratios(rows)
    for dataset in data["dataset"].unique():
        caption = (
            f"{dataset}: time of a training step over that of the dense network with the same seed; mean and 95 % "
            "interval over seeds, cut by the panel. Of processors where training was on one, since cells that run side "
            "by side slow each other on the wall."
        )
        yield Plot(f"step-time-{dataset}", caption, data[data["dataset"] == dataset], partial(draw, look=look))


def ratios(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Mean, interval and n of the ratio by (dataset, model, method), paired by seed."""
    rows = rows[rows["evaluation"].eq("pruned")]
    rows = rows.assign(step_ms=rows["step_ms"] * training_seconds(rows) / rows["train_seconds"])
    key = ["dataset", "model", "seed"]
    dense = rows.loc[rows["method"] == "dense", [*key, "step_ms"]]
    paired = rows.merge(dense, on=key, suffixes=("", "_dense"))
    paired["ratio"] = paired["step_ms"] / paired["step_ms_dense"]
    paired = paired.dropna(subset="ratio")
    if paired.empty:
        return pandas.DataFrame(columns=[*GROUP, "ratio", "ratio_half", "ratio_n"])
    return aggregate(paired, GROUP, ["ratio"])


def draw(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """One panel per model, one line per method in the plan's order."""
    models, methods = list(data["model"].unique()), list(data["method"].unique())
    figure, axes = grid(len(models), height=0.6 + 0.16 * len(methods), sharey=True)
    for ax, model in zip(axes, models, strict=True):
        for row in data[data["model"] == model].itertuples():
            place, style = methods.index(row.method), look[row.method]
            ax.errorbar(row.ratio, place, xerr=row.ratio_half, color=style.colour, marker=style.marker, elinewidth=0.9)
        ax.axvline(1, color="#000000", lw=0.7, ls=(0, (4, 2)))
        ax.set(title=model, xlabel="step time / dense step time")
        ax.set_yticks(range(len(methods)), methods)
        ax.set_ylim(len(methods) - 0.5, -0.5)
        # Zero belongs to a ratio's axis.
        ax.set_xlim(0, 1.25 * data.loc[data["model"] == model, "ratio"].max())
    return figure
