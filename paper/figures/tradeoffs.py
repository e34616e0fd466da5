"""Figures of accuracy against cost: kept ratio with intervals, and Pareto fronts over three costs."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper.figures.canvas import Plot
from paper.figures.style import Look, frame, grid, legend_below, present, rule_of
from paper.statistics.pareto import COSTS

LEAST_SPAN = 1.0
"""Percentage points that an accuracy axis shows at least, so that noise does not look like a gap."""


def plots(points: pandas.DataFrame, look: dict[str, Look]) -> Iterator[Plot]:
    """Accuracy against kept ratio, and the Pareto fronts, for each dataset.

    Args:
        points: `pareto.pareto`, as statistics/pareto.csv holds it.
        look: Of each method of the table.
    """
    for dataset in points["dataset"].unique():
        part = points[points["dataset"] == dataset]
        kept = part[part["cost"] == "kept_ratio"]
        if not kept.empty:
            caption = (
                f"{dataset}: test top-1 against kept parameters; bars are 95 % intervals over seeds, lines join the "
                "variants of a method, the dashed line is the dense network. Bars longer than the panel are cut."
            )
            yield Plot(f"accuracy-{dataset}", caption, kept, partial(draw_accuracy, look=look))
        if not part.empty:
            caption = (
                f"{dataset}: test top-1 against three costs. Filled points are on the Pareto front (no other method is "
                "as good in both and better in one); hollow points are not."
            )
            yield Plot(f"pareto-{dataset}", caption, part, partial(draw_pareto, look=look))


def draw_accuracy(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """One panel per model; a colour per rule, its variants joined in the order of what they keep."""
    models = list(data["model"].unique())
    of_rule: dict[str, Look] = {}
    for name, style in present(look, data["method"]).items():
        of_rule.setdefault(rule_of(name), style)  # A rule looks like its first variant does in the other figures.
    figure, axes = grid(len(models), height=2.3)
    for ax, model in zip(axes, models, strict=True):
        part = data[data["model"] == model].assign(rule=lambda frame: frame["method"].map(rule_of))
        for rule, line in part.groupby("rule", sort=False):
            ordered = line.sort_values("value")
            style = {
                "color": of_rule[rule].colour,
                "marker": of_rule[rule].marker,
                "ls": "-",
                "lw": 0.8,
                "elinewidth": 0.7,
            }
            ax.errorbar(ordered["value"], ordered["top1"], ordered["top1_half"], ordered["value_half"], **style)
        for dense in part.loc[part["method"] == "dense", "top1"]:
            ax.axhline(dense, color="#000000", ls=(0, (4, 2)), lw=0.7)
        set_frame(ax, part)
        ax.set(title=model, xlabel=COSTS["kept_ratio"], ylabel="test top-1 (%)")
    legend_below(figure, [_handle(name, of_rule[name], filled=True) for name in of_rule])
    return figure


def draw_pareto(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """One row of panels per model, one column per cost."""
    models, look = list(data["model"].unique()), present(look, data["method"])
    costs = [cost for cost in COSTS if cost in set(data["cost"])]
    figure, axes = grid(len(costs) * len(models), height=1.9, columns=len(costs))
    for number, ax in enumerate(axes):
        model, cost = models[number // len(costs)], costs[number % len(costs)]
        part = data[(data["model"] == model) & (data["cost"] == cost)]
        front = part[part["on_front"]].sort_values(["value", "top1"])
        ax.plot(front["value"], front["top1"], drawstyle="steps-post", color="#888", lw=0.8, zorder=1)
        draw_points(ax, part, look)
        set_frame(ax, part)
        ax.set(title=model, xlabel=COSTS[cost], ylabel="test top-1 (%)" if number % len(costs) == 0 else "")
    legend_below(figure, [_handle(name, look[name], filled=True) for name in look])
    return figure


def draw_points(ax: Axes, part: pandas.DataFrame, look: dict[str, Look]) -> None:
    """A marker for each method, filled on the front and hollow off it."""
    for on_front, points in part.groupby("on_front"):
        seaborn.scatterplot(
            points,
            x="value",
            y="top1",
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


def _handle(name: str, look: Look, *, filled: bool) -> Line2D:
    face = look.colour if filled else "white"
    return Line2D([], [], color=look.colour, marker=look.marker, markerfacecolor=face, ls="", label=name)


def set_frame(ax: Axes, part: pandas.DataFrame) -> None:
    """Room for all points, on the accuracy axis not for bars that are much longer than what lies between the points."""
    ax.set_ylim(frame(part["top1"], least=LEAST_SPAN, room=0.4, low=0, high=100))
    ax.set_xlim(frame(part["value"], least=20, room=0.1, low=0))
