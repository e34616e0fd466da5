"""The figure of the main metric against training time, where a table trains with recipes of several lengths."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pandas
from matplotlib.figure import Figure

from harness import kinds
from paper.figures.canvas import Plot
from paper.figures.style import Look, frame, grid, legend_below, line_handle, plain_log_ticks, present
from paper.rows.summary import aggregate, scored, training_seconds


def plots(rows: pandas.DataFrame, look: dict[str, Look]) -> Iterator[Plot]:
    """One figure for all models that were trained on the same data with recipes of several lengths.

    Args:
        rows: Tidy rows (`summary.read_rows`).
        look: Of each method of the table.
    """
    done = rows[rows["evaluation"].eq("pruned") & rows["status"].eq("done")]
    if done.empty:
        return
    done = scored(done.assign(seconds=training_seconds(done))).dropna(subset=["seconds"])
    for _, part in done.groupby("data", sort=False):
        lengths = part["dataset"].unique()
        if len(lengths) < 2:
            continue
        points = aggregate(part, ["model", "method", "dataset", "kind"], ["seconds", "score"])
        words = kinds.named(part["kind"].iloc[0]).main.words
        caption = (
            f"{', '.join(lengths)}: test {words} against training time on this machine, of processors where training "
            "was on one. Each line joins the recipes of a method, each trained to its end; bars are 95 % intervals "
            "over seeds, and cut where they are longer than the panel."
        )
        yield Plot(f"time-{lengths[0]}", caption, points, partial(draw, look=look))


def draw(points: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """A panel for each model; a line for each method, its recipes in the order of their time."""
    main, look = kinds.named(points["kind"].iloc[0]).main, present(look, points["method"])
    figure, axes = grid(points["model"].nunique(), height=2.6, columns=2)
    for ax, (model, part) in zip(axes, points.groupby("model", sort=False), strict=True):
        for method, line in part.sort_values("seconds").groupby("method", sort=False):
            style = look[str(method)]
            options = {"color": style.colour, "marker": style.marker, "ls": style.dash, "lw": 0.9, "elinewidth": 0.5}
            ax.errorbar(line["seconds"], line["score"], line["score_half"], line["seconds_half"], **options)
        ax.set_xscale("log")
        plain_log_ticks(ax.xaxis)
        ax.set_ylim(frame(part["score"], least=main.least_span, room=0.15))
        ax.set(title=model, xlabel="training time (s)", ylabel=f"test {main.axis}")
    legend_below(figure, [line_handle(name, style) for name, style in look.items()])
    return figure
