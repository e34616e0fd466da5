"""One look for all figures: sizes, and a colour, marker and dash of its own for every method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

matplotlib.use("Agg")

STYLE_PATH = Path(__file__).with_name("style.mplstyle")
COLUMN, PAGE = 3.4, 7.0
"""Inches: a column and the width of a page's text."""

# From seaborn's colour-blind palette; its yellow and pink are too light for thin lines.
COLOURS = ["#d55e00", "#0173b2", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#949494"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X"]
DASHES: list[Any] = ["solid", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))]


@dataclass(frozen=True)
class Look:
    """How a method is drawn: no two methods share all three."""

    colour: str
    marker: str
    dash: Any


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method: dense is black, EDropout vermilion, the others go by their order.

    Colours repeat after seven methods, with another marker and dash, so that twenty can be told apart.
    """
    names = list(dict.fromkeys(methods))
    others = [name for name in names if name not in ("dense", "edropout")]
    chosen = {"dense": Look("#000000", "*", DASHES[0]), "edropout": Look(COLOURS[0], MARKERS[0], DASHES[0])}
    for number, name in enumerate(others, 1):
        turn, place = divmod(number, len(COLOURS))
        chosen[name] = Look(COLOURS[place], MARKERS[(place + turn) % len(MARKERS)], DASHES[turn % len(DASHES)])
    return {name: chosen[name] for name in names}


def grid(panels: int, *, height: float = 2.0, columns: int = 3, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes: one is a column wide, more fill the width of a page."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    width = COLUMN if columns == 1 else PAGE
    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height * rows + 0.2), squeeze=False, **options)
    flat = list(axes.flat)
    for unused in flat[panels:]:
        unused.remove()
    return figure, flat[:panels]


def legend_below(figure: Figure, handles: list[Line2D]) -> None:
    """One legend for all panels, below them, growing the figure by what it needs."""
    width, height = figure.get_size_inches()
    longest = max(len(handle.get_label()) for handle in handles)
    columns = max(1, min(len(handles), int(width / (0.5 + 0.062 * longest))))
    figure.set_size_inches(width, height + 0.15 * -(-len(handles) // columns) + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2)
