"""Tables of what was observed, one for each theorem."""

from __future__ import annotations

import math
from typing import Any

import pandas

from paper.tables.page import NONE, Cell, Table, text

CAPTION = (
    "Each statement, the number that decides it, and the limits within which it counts as observed. Not observed is a "
    "result too; what it means, and which limits were set after a first trial, stands in docs/theory.md."
)
COLUMNS = ["Statement", "Data", "What was measured", "Value", "Limits", "Verdict"]

NAMES = {"movielens-100k": "MovieLens-100k", "mnist": "MNIST", "fashion": "Fashion-MNIST"}
"""Of data, as they are written."""


def tables(verdicts: pandas.DataFrame) -> list[Table]:
    """One table for each theorem.

    Args:
        verdicts: Rows of verdicts.csv, of any number of theorems.
    """
    groups = verdicts.fillna({"reason": ""}).groupby("theorem", sort=False)
    return [table(title, part, CAPTION if number == 0 else "") for number, (title, part) in enumerate(groups)]


def table(title: str, part: pandas.DataFrame, caption: str) -> Table:
    """The statements of one theorem; what could not be run has its reason below the table."""
    reasons = part.loc[part["reason"].ne(""), ["data", "reason"]].drop_duplicates()
    notes = [f"{NAMES.get(row.data, row.data)}: not run, {row.reason}." for row in reasons.itertuples()]
    rows = [line(row) for row in part.itertuples()]
    return Table(title.rstrip("."), caption, COLUMNS, rows, notes=notes, left=3, last_text=True)


def line(row: Any) -> list[Cell]:
    """Cells of one statement."""
    words = [text(row.statement), text(NAMES.get(row.data, row.data))]
    if row.verdict == "not run":
        return [*words, text(NONE), Cell(NONE), Cell(NONE), text(row.verdict)]
    value = Cell(f"{row.value:.4g}", row.value)
    return [*words, text(row.measure), value, text(limits(row.low, row.high)), text(row.verdict)]


def limits(low: float, high: float) -> str:
    """Both limits in words, without those that are infinite; what is within a millionth of a round number is that."""
    low, high = (float(f"{value:.4g}") for value in (low, high))
    if math.isinf(low):
        return f"≤ {high:g}"
    if math.isinf(high):
        return f"≥ {low:g}"
    return f"{low:g} to {high:g}"
