"""What a page of results is made of, before it becomes Markdown, LaTeX, HTML or PDF."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

NONE = "—"


@dataclass(frozen=True)
class Cell:
    """One entry of a table: what is read, and what it sorts by (None sorts last)."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with what is needed to read it.

    Attributes:
        title: A few words.
        caption: How to read the table: units, rules.
        columns: Headings; `left` of them, from the first on, hold text and the others numbers.
        rows: One list of cells per row, as long as `columns`.
        notes: Footnotes.
        left: Number of text columns at the left; the last column is text too if `last_text`.
        last_text: Whether the last column holds words.
    """

    title: str
    caption: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)
    left: int = 2
    last_text: bool = False

    def is_text(self, column: int) -> bool:
        """Whether a column holds words."""
        return column < self.left or (self.last_text and column == len(self.columns) - 1)


@dataclass(frozen=True)
class Page:
    """Tables of one results table with what must be said first.

    Attributes:
        name: Name of the table in the configuration.
        warnings: Sentences.
        problems: A line for each cell without numbers.
        tables: In reading order.
    """

    name: str
    warnings: list[str]
    problems: list[str]
    tables: list[Table]


def text(value: str) -> Cell:
    """A cell of words."""
    return Cell(value)


def mean(value: float, half: float = math.nan, *, digits: int, scale: float = 1.0) -> Cell:
    """`mean ± half width`, the mean alone if there is no interval, a dash if there is no number."""
    if math.isnan(value):
        return Cell(NONE)
    shown = f"{value * scale:.{digits}f}"
    if not math.isnan(half):
        shown += f" ± {half * scale:.{digits}f}"
    return Cell(shown, value * scale)


def quantity(value: float) -> Cell:
    """A count with three significant digits and a suffix: 11.2 M, 78.0 k."""
    if math.isnan(value):
        return Cell(NONE)
    for unit, size in ((" G", 1e9), (" M", 1e6), (" k", 1e3)):
        if value >= size:
            scaled = value / size
            return Cell(f"{scaled:.{max(0, 2 - int(math.log10(scaled)))}f}{unit}", value)
    return Cell(f"{value:.0f}", value)


def plain(value: float, digits: int = 0) -> Cell:
    """A number as it is."""
    return Cell(NONE) if math.isnan(value) else Cell(f"{value:.{digits}f}", value)
