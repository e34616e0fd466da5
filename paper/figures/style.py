"""One look for all figures: sizes, and a colour, marker and dash of its own for every method."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from paper.rows.row import rule_of

STYLES = ["default", Path(__file__).with_name("style.mplstyle")]
"""Of the user's own matplotlibrc nothing is left."""
COLUMN, PAGE, TALLEST = 3.4, 7.0, 9.0
"""Inches: a column, and the width and height of a page's text."""

# From seaborn's colour-blind palette; its yellow and pink are too light for thin lines.
FIXED = {"dense": "#000000", "edropout": "#d55e00"}
RULES = [
    *("dense", "edropout", "random", "l1", "thinet", "depgraph", "scratch", "dropout", "deep_compression"),
    *("ipruning", "channelnet", "random_path", "approximate", "gaussian", "variational", "concrete", "dropconnect"),
    *("advanced", "information", "continuous", "uout", "standout", "sparse_variational", "variational_bayesian"),
    *("beta_bernoulli", "dropblock"),
]
"""Which colour a rule has goes by its place here; that of others by their name."""
COLOURS = ["#0173b2", "#029e73", "#cc78bc", "#de8f05", "#56b4e9", "#949494"]
MARKERS = ["*", "o", "s", "^", "D", "v", "P", "X"]
DASHES: list[Any] = [
    *("solid", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1))),
    *((0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 3)), (0, (8, 2, 2, 2))),
]


@dataclass(frozen=True)
class Look:
    """How a method is drawn: no two methods share all three."""

    colour: str
    marker: str
    dash: Any


def looks(methods: Iterable[str]) -> dict[str, Look]:
    """A look for each method by its name, so that it has the same one in every table.

    Dense is black and EDropout vermilion; variants of a rule share its colour. Where two names ask for the same colour
    and marker, or the same colour and dash, the later one in the alphabet takes the next.

    Args:
        methods: Names, repetitions allowed; the result has their order.
    """
    names = list(dict.fromkeys(methods))
    chosen: dict[str, Look] = {}
    for name in sorted(names):
        rule, variant = rule_of(name), name.partition("-")[2]
        place = RULES.index(rule) if rule in RULES else _number(rule)
        colour = FIXED.get(rule, COLOURS[place % len(COLOURS)])
        step = _number(variant) if variant else 0
        used = [look for look in chosen.values() if look.colour == colour]
        marker = _free(MARKERS, place + step, [look.marker for look in used])
        dash = _free(DASHES, place // len(COLOURS) + step, [look.dash for look in used])
        chosen[name] = Look(colour, marker, dash)
    return {name: chosen[name] for name in names}


def in_turn(methods: Iterable[str]) -> dict[str, Look]:
    """Looks for a figure of few methods, mostly variants of one rule: a colour for each, while there are enough."""
    names = dict.fromkeys(methods)
    others = [name for name in names if name not in FIXED]
    colours = FIXED | {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(others)}
    rounds = dict.fromkeys(FIXED, 0) | {name: place // len(COLOURS) for place, name in enumerate(others)}
    return {
        name: Look(colours[name], MARKERS[place % len(MARKERS)], DASHES[rounds[name] % len(DASHES)])
        for place, name in enumerate(names)
    }


def _number(name: str) -> int:
    """A number of its own for nearly every name, the same everywhere."""
    return zlib.crc32(name.encode())


def _free(choices: Sequence[Any], first: int, used: Sequence[Any]) -> Any:
    """The choice at the place `first`, or the next that fewest have."""
    places = [choices[(first + step) % len(choices)] for step in range(len(choices))]
    return min(places, key=used.count)


def present(look: dict[str, Look], methods: Iterable[str]) -> dict[str, Look]:
    """The looks of those methods that a figure shows, for its legend."""
    names = set(methods)
    return {name: style for name, style in look.items() if name in names}


def grid(panels: int, *, height: float = 2.0, columns: int = 3, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of `panels` axes: one is a column wide, more fill the width of a page."""
    columns = min(panels, columns)
    rows = -(-panels // columns)
    size = (COLUMN if columns == 1 else PAGE, min(height * rows + 0.2, TALLEST))
    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, **options)
    flat = list(axes.flat)
    for unused in flat[panels:]:
        unused.remove()
    return figure, flat[:panels]


def line_handle(name: str, look: Look) -> Line2D:
    """How a legend shows a method that is drawn as a line with markers."""
    return Line2D([], [], color=look.colour, marker=look.marker, ls=look.dash, lw=0.9, label=name)


def legend_below(figure: Figure, handles: list[Line2D]) -> None:
    """One legend for all panels, below them, growing the figure by what it needs."""
    width, height = figure.get_size_inches()
    longest = max(len(handle.get_label()) for handle in handles)
    fitting = max(1, min(len(handles), int(width / (0.42 + 0.05 * longest))))
    rows = -(-len(handles) // fitting)
    columns = -(-len(handles) // rows)  # As even as can be.
    figure.set_size_inches(width, height + 0.15 * rows + 0.1)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.2)


def frame(
    values: Iterable[float], *, least: float, room: float, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """Limits of an axis around means: few seeds can have intervals so long that they would squeeze all else.

    Args:
        values: The means that must be seen.
        least: Smallest span of the axis.
        room: How much to add at each end, as a part of the span of the means.
        low: What no value can be below; the axis passes it by no more than a marker needs.
        high: Likewise above.
    """
    known = [value for value in values if not math.isnan(value)]
    bottom, top = min(known), max(known)
    pad = max(room * (top - bottom), (least - (top - bottom)) / 2)
    marker = 0.04 * (top - bottom + 2 * pad)
    return max(bottom - pad, low - marker), min(top + pad, high + marker)


def plain_log_ticks(axis: Axis) -> None:
    """Numbers as they are, not as powers of ten, on an axis with a logarithmic scale."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())
