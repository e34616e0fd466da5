"""Figures of accuracy against cost: kept ratio with intervals, and Pareto fronts over four costs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from harness import kinds
from paper.figures.canvas import Plot
from paper.figures.style import Look, frame, grid, legend_below, plain_log_ticks, present
from paper.rows.row import rule_of
from paper.statistics.pareto import COSTS

GREY = Look("#555555", "o", "solid")
LEAST = 1e-6
"""Span of an axis whose values are all one, where a metric asks for none."""


def plots(points: pandas.DataFrame, look: dict[str, Look]) -> Iterator[Plot]:
    """Accuracy against kept ratio, and the Pareto fronts, for each dataset.

    Args:
        points: `pareto.pareto`, as statistics/pareto.csv holds it.
        look: Of each method of the table.
    """
    for dataset in points["dataset"].unique():
        part = points[points["dataset"] == dataset]
        main = _main(part)
        kept = part[part["cost"] == "kept_ratio"]
        if not kept.empty:
            caption = (
                f"{dataset}: test {main.words} against kept parameters; bars are 95 % intervals over seeds, lines join "
                "the variants of a method, the dashed line is the dense network. Bars longer than the panel are cut."
            )
            yield Plot(f"{_subject(main)}-{dataset}", caption, kept, partial(draw_accuracy, look=look))
        if not part.empty:
            caption = (
                f"{dataset}: test {main.words} against four costs. Filled points are on the Pareto front (no other "
                "method is as good in both and better in one); hollow points are not. Bars are 95 % intervals over "
                "seeds."
            )
            yield Plot(f"pareto-{dataset}", caption, part, partial(draw_pareto, look=look))


def draw_accuracy(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """One panel per model, the kept ratio on a logarithmic axis; a line joins the variants of a rule."""
    models, look, main = list(data["model"].unique()), present(look, data["method"]), _main(data)
    figure, axes = grid(len(models), height=2.6, columns=2)
    for ax, model in zip(axes, models, strict=True):
        part = data[data["model"] == model].assign(rule=lambda frame: frame["method"].map(rule_of))
        for _, line in part.groupby("rule", sort=False):
            ordered = line.sort_values("value")
            colour = look[ordered["method"].iloc[0]].colour
            ax.plot(ordered["value"], ordered["score"], color=colour, lw=0.7, alpha=0.6, zorder=1)
        for point in part.itertuples():
            draw_bars(ax, point, look[point.method], main)
            ax.plot(point.value, point.score, color=look[point.method].colour, marker=look[point.method].marker, ls="")
        for dense in part.loc[part["method"] == "dense", "score"]:
            ax.axhline(dense, color="#000000", ls=(0, (4, 2)), lw=0.7)
        set_frame(ax, part)
        ax.set_xscale("log")
        ax.set_xlim(part["value"].min() / 1.3, part["value"].max() * 1.3)
        plain_log_ticks(ax.xaxis)
        ax.set(title=model, xlabel=COSTS["kept_ratio"], ylabel=f"test {main.axis}")
    legend_below(figure, [_handle(name, look[name], filled=True) for name in look])
    return figure


def draw_bars(ax: Axes, point: Any, style: Look, main: kinds.Metric) -> None:
    """The intervals of a point, which pass no value that the metric cannot have."""
    low, high = ends(main)
    up, down = min(point.score_half, high - point.score), min(point.score_half, point.score - low)
    options = {"color": style.colour, "ls": "", "elinewidth": 0.5, "zorder": 1}
    ax.errorbar(point.value, point.score, [[down], [up]], point.value_half, **options)


def draw_pareto(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """One row of panels per model, one column per cost."""
    models, look = list(data["model"].unique()), present(look, data["method"])
    costs = [cost for cost in COSTS if cost in set(data["cost"])]
    figure, axes = grid(len(costs) * len(models), height=1.9, columns=len(costs))
    for number, ax in enumerate(axes):
        model, cost = models[number // len(costs)], costs[number % len(costs)]
        part = data[(data["model"] == model) & (data["cost"] == cost)]
        front = part[part["on_front"]].sort_values(["value", "score"])
        ax.plot(front["value"], front["score"], drawstyle="steps-post", color="#888", lw=0.8, zorder=1)
        for point in part.itertuples():
            draw_bars(ax, point, look[point.method], _main(part))
        draw_points(ax, part, look)
        set_frame(ax, part)
        ax.set(title=model, xlabel=COSTS[cost], ylabel=f"test {_main(data).axis}" if number % len(costs) == 0 else "")
    meaning = [_handle(words, GREY, filled=filled) for words, filled in (("on the front", True), ("not on it", False))]
    legend_below(figure, [*(_handle(name, look[name], filled=True) for name in look), *meaning])
    return figure


def draw_points(ax: Axes, part: pandas.DataFrame, look: dict[str, Look]) -> None:
    """A marker for each method, filled on the front and hollow off it."""
    for on_front, points in part.groupby("on_front"):
        seaborn.scatterplot(
            points,
            x="value",
            y="score",
            hue="method",
            style="method",
            palette={name: look[name].colour for name in look},
            markers={name: look[name].marker for name in look},
            s=26,
            linewidth=0.9,
            legend=False,
            zorder=2,
            ax=ax,
        )
        drawn = ax.collections[-1]
        drawn.set_edgecolor(drawn.get_facecolor())
        if not on_front:
            drawn.set_facecolor("white")


def _main(data: pandas.DataFrame) -> kinds.Metric:
    return kinds.named(data["kind"].iloc[0]).main


def _subject(main: kinds.Metric) -> str:
    return "accuracy" if main.unit == "%" else main.name


def _handle(name: str, look: Look, *, filled: bool) -> Line2D:
    face = look.colour if filled else "white"
    return Line2D([], [], color=look.colour, marker=look.marker, markerfacecolor=face, ls="", label=name)


def ends(main: kinds.Metric) -> tuple[float, float]:
    """What the metric, as it is shown, cannot fall below and not pass."""
    low, high = (math.inf * sign if end is None else main.scale * end for sign, end in ((-1, main.low), (1, main.high)))
    return low, high


def set_frame(ax: Axes, part: pandas.DataFrame) -> None:
    """Room for all points, on the accuracy axis not for bars that are much longer than what lies between the points."""
    main = _main(part)
    low, high = ends(main)
    ax.set_ylim(frame(part["score"], least=main.least_span or LEAST, room=0.4, low=low, high=high))
    ax.set_xlim(frame(part["value"], least=20, room=0.1, low=0))
