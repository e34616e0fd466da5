"""Figures by layer: how much each method keeps where."""

from __future__ import annotations

from collections.abc import Iterator

import pandas
import seaborn
from matplotlib import pyplot
from matplotlib.figure import Figure

from paper.figures.canvas import Plot
from paper.figures.style import COLUMN, PAGE

MOST_LAYER_NAMES = 45
"""More layer names than this do not fit below a heat map as wide as a page."""

MOST_NUMBERS = 160
"""More numbers than this nobody reads; the colours and the CSV remain."""


def plots(layers: pandas.DataFrame, planned: pandas.DataFrame) -> Iterator[Plot]:
    """Kept ratio of every layer, methods x layers, for each dataset and model.

    Args:
        layers: `paper.rows.collect.layers`.
        planned: Tidy rows of all planned cells: a method without a finished one is named in the caption.
    """
    order = ["dataset", "model", "method", "layer"]
    mean = layers.groupby(order, sort=False)["kept_ratio"].agg(["mean", "count"]).reset_index()
    for (dataset, model), part in mean.groupby(["dataset", "model"], sort=False):
        caption = f"{dataset}, {model}: kept ratio of each layer's weights in percent, mean over seeds."
        here = planned[(planned["dataset"] == dataset) & (planned["model"] == model)]
        absent = [name for name in here["method"].unique() if name not in set(part["method"])]
        if absent:
            caption += f" Without a finished cell that lists its layers: {', '.join(absent)}."
        data = part.assign(mean=100 * part["mean"]).rename(columns={"count": "n"})
        yield Plot(f"layers-{dataset}-{model}", caption, data, draw)


def draw(data: pandas.DataFrame) -> Figure:
    """A heat map, layers in the order of the network."""
    layers, methods = list(data["layer"].unique()), list(data["method"].unique())
    table = data.pivot(index="method", columns="layer", values="mean").loc[methods, layers]
    wide = len(layers) > 9 or len(methods) > 12
    figure, ax = pyplot.subplots(figsize=(PAGE if wide else COLUMN, 0.9 + 0.17 * len(methods) + 0.4))
    seaborn.heatmap(
        table,
        ax=ax,
        vmin=0,
        vmax=100,
        cmap="cividis",
        linewidths=0.3,
        annot=len(layers) <= 24 and table.size <= MOST_NUMBERS,
        fmt=".0f",
        annot_kws={"fontsize": 5.5},
        cbar_kws={"label": "kept (%)", "pad": 0.02},
        xticklabels=-(-len(layers) // MOST_LAYER_NAMES),
        yticklabels=1,
    )
    ax.tick_params(length=0)
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(axis="y", rotation=0)
    ax.grid(False)
    ax.set(xlabel="", ylabel="")
    return figure
