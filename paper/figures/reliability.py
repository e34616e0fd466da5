"""Reliability diagrams: how often predictions are right, against how sure they are."""

from __future__ import annotations

from collections.abc import Iterator

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness.kinds.classification import BINS
from paper.figures.canvas import Plot
from paper.figures.style import COLOURS, grid, legend_below

LOOKS = {"test": ("o", COLOURS[0], "one pass"), "sampled_test": ("s", COLOURS[3], "mean of passes that draw")}


def plots(reliability: pandas.DataFrame) -> Iterator[Plot]:
    """A figure for each dataset and network whose cells have bins, with a panel for each method.

    Args:
        reliability: The reliability.csv of paper.rows.collect.
    """
    for (dataset, model), part in reliability.groupby(["dataset", "model"], sort=False):
        caption = (
            f"{dataset}, {model}: share of right answers against confidence in {BINS} bins, test examples of all seeds "
            "together. Below the diagonal predictions are too sure. The area of a marker is the bin's share."
        )
        yield Plot(f"reliability-{dataset}-{model}", caption, pooled(part), draw)


def pooled(part: pandas.DataFrame) -> pandas.DataFrame:
    """The bins of all seeds of a method together: means that are weighted by the examples in them."""
    place = numpy.ceil(BINS * part["confidence"]).clip(1, BINS).astype(int)
    weights = part["share"] / part["method"].map(part.groupby("method")["seed"].nunique())
    parts = part.assign(
        bin=place, share=weights, confidence=weights * part["confidence"], right=weights * part["right"]
    )
    sums = parts.groupby(["method", "evaluation", "bin"], sort=False)[["share", "confidence", "right"]].sum()
    sums[["confidence", "right"]] = sums[["confidence", "right"]].div(sums["share"], axis=0)
    return sums.reset_index()


def draw(data: pandas.DataFrame) -> Figure:
    """A panel for each method, in the order of the table."""
    methods = list(dict.fromkeys(data["method"]))
    figure, axes = grid(len(methods), height=1.7, columns=4, sharex=True, sharey=True)
    for ax, method in zip(axes, methods, strict=True):
        ax.plot([0, 1], [0, 1], color="#999", linewidth=0.8)
        for name, (marker, colour, _) in LOOKS.items():
            bins = data[data["method"].eq(method) & data["evaluation"].eq(name)].sort_values("bin")
            ax.plot(bins["confidence"], bins["right"], color=colour, linewidth=0.8)
            sizes = 4 + 60 * bins["share"]
            ax.scatter(bins["confidence"], bins["right"], s=sizes, marker=marker, color=colour, alpha=0.7, linewidths=0)
        ax.set_title(method, fontsize=7)
        ax.set(xlim=(0, 1.03), ylim=(0, 1.03), xlabel="confidence")
        ax.tick_params(labelbottom=True)  # the panel below may be missing
    figure.supylabel("share of right answers", fontsize=7)
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, label=label)
        for name, (marker, colour, label) in LOOKS.items()
        if data["evaluation"].eq(name).any()
    ]
    legend_below(figure, handles)
    return figure
