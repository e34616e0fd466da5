"""The critical-difference diagram: average ranks, with bars over methods that the tests cannot tell apart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas
import scikit_posthocs
from matplotlib import pyplot
from matplotlib.figure import Figure

from paper.figures.canvas import Plot
from paper.figures.style import PAGE, Look


def plots(statistics: Path, look: dict[str, Look]) -> Iterator[Plot]:
    """The diagram, where paper.statistics.compute could rank.

    Args:
        statistics: Folder with ranks.csv and nemenyi.csv.
        look: Of each method of the table.
    """
    if not (statistics / "ranks.csv").exists():
        return
    ranks = pandas.read_csv(statistics / "ranks.csv")
    matrix = pandas.read_csv(statistics / "nemenyi.csv", index_col="method")
    first = ranks.iloc[0]
    caption = (
        f"Average ranks of mean test {first['metric']} over {first['blocks']} (dataset, model) pairs, 1 is best. Bars "
        f"join methods that Nemenyi's test cannot tell apart at 5 %; Friedman's test: p = {first['friedman_p']:.3g}."
    )
    yield Plot("critical-difference", caption, ranks, partial(draw, matrix=matrix, look=look))


def draw(data: pandas.DataFrame, matrix: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """The diagram of scikit-posthocs, with its own line for the critical difference."""
    ranks = data.set_index("method")["rank"]
    figure, ax = pyplot.subplots(figsize=(PAGE, 1.0 + 0.11 * len(ranks)))
    artists = scikit_posthocs.critical_difference_diagram(
        ranks,
        matrix.loc[ranks.index, ranks.index],
        ax=ax,
        label_props={"fontsize": 6.5},
        marker_props={"s": 18},
        elbow_props={"linewidth": 0.8},
        crossbar_props={"color": "#555", "linewidth": 2},
        color_palette={name: look[name].colour for name in ranks.index},
        text_h_margin=0.02,
    )
    for (bar,) in artists["crossbars"]:
        # The library draws a bar through a set, whose order is another in every process.
        bar.set_xdata(sorted(bar.get_xdata()))
    ax.grid(False)
    ax.set_title(f"critical difference {data['critical_difference'].iloc[0]:.2f}", fontsize=7)
    return figure
