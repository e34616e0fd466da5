"""What a theorem's file offers: experiments, each of them a measurement and the statements that its rows decide."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas


@dataclass(frozen=True)
class Data:
    """Where published data lies, and whether what is missing there may be downloaded."""

    root: Path
    download: bool = False


@dataclass(frozen=True)
class Verdict:
    """A number and the limits that were set for it before it was measured.

    Attributes:
        measure: What the number is, in words.
        value: The number; NaN lies within no limits.
        low: Smallest value with which the statement is observed.
        high: Largest one.
    """

    measure: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def observed(self) -> bool:
        """Whether the number lies within its limits."""
        return self.low <= self.value <= self.high


Statement = Callable[[pandas.DataFrame], Verdict]
"""Decides a sentence, the first line of its docstring, by the rows of an experiment."""


@dataclass(frozen=True)
class Experiment:
    """A measurement on one set of data.

    Attributes:
        data: Name of the data.
        measure: Makes the tidy rows: one number each, named by `quantity`, and the settings that it was measured with.
        statements: What the rows decide.
    """

    data: str
    measure: Callable[[Data], pandas.DataFrame]
    statements: tuple[Statement, ...]


def sentence(documented: Any) -> str:
    """What a statement or a theorem claims: the first line of its docstring."""
    return inspect.getdoc(documented).splitlines()[0]


def values(rows: pandas.DataFrame, quantity: str, by: str | list[str]) -> pandas.Series:
    """Mean of a quantity for each setting of `by`, in ascending order."""
    return rows.loc[rows["quantity"].eq(quantity)].groupby(by)["value"].mean()


def largest_step(series: pandas.Series) -> float:
    """Largest ratio of a value to the one before it: below 1 if and only if a positive series falls all the way."""
    return float((series / series.shift()).max())


def tidy(rows: Iterable[Mapping[str, Any]], *settings: str) -> pandas.DataFrame:
    """One row for each number: what is no setting is a quantity."""
    return pandas.DataFrame(rows).melt(list(settings), var_name="quantity")
