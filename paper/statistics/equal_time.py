"""Tests at equal training time: a cheap method's long training beside the short one of what it is cheaper than."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas

from harness import kinds
from paper.rows.row import rule_of
from paper.rows.summary import scored, training_seconds
from paper.statistics.paired import compare, holm, result_of

ROOM = 1.02
"""Times that differ by less are equal."""
COLUMNS = [
    *("data", "model", "kind", "reference", "method", "dataset", "epochs", "time_ratio", "pairs", "difference"),
    *("t_low", "t_high", "t_p", "t_p_holm", "result"),
]


def equal_time(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Differences in the main metric to the dense network and to dropout, none of which had less training time.

    Only where a table has the same data with recipes of several lengths. The references are the dense network and, of
    the variants of dropout, the one that validation prefers, both with the shortest recipe. Each other method stands
    with the longest of its recipes whose mean training time is not above the reference's; one that is above even with
    the shortest stands with that, and its `time_ratio` says so. Paired by seeds; Student's t, corrected by Holm over
    all lines.

    Args:
        rows: Tidy rows (`summary.read_rows`).

    Returns:
        COLUMNS; `time_ratio` is mean training time over the reference's.
    """
    rows = rows[rows["evaluation"].eq("pruned") & rows["status"].eq("done")]
    lines = list(_lines(scored(rows.assign(time=training_seconds(rows)))))
    table = pandas.DataFrame(lines, columns=[name for name in COLUMNS if name not in ("t_p_holm", "result")])
    table["t_p_holm"] = holm(table["t_p"])
    table["result"] = [result_of(row) for row in table.itertuples()]
    return table[COLUMNS]


def _lines(rows: pandas.DataFrame) -> Iterator[list[Any]]:
    for (data, model), part in rows.groupby(["data", "model"], sort=False):
        if part["dataset"].nunique() < 2:
            continue
        short = part.groupby("dataset", sort=False)["total_epochs"].min().idxmin()
        for reference in _references(part[part["dataset"] == short]):
            first = part[(part["dataset"] == short) & (part["method"] == reference)]
            for method, own in part.groupby("method", sort=False):
                if method == "dense" or rule_of(str(method)) == "dropout":
                    continue
                chosen = own[own["dataset"] == _budget(own, first["time"].mean())]
                if chosen.empty:
                    continue
                pairs = chosen.set_index("seed")["score"] - first.set_index("seed")["score"]
                count, difference, low, high, _, _, p, _ = compare(pairs.dropna().to_numpy())
                place = [data, model, first["kind"].iloc[0], reference, method, chosen["dataset"].iloc[0]]
                ratio = chosen["time"].mean() / first["time"].mean()
                yield [*place, chosen["total_epochs"].mean(), ratio, count, difference, low, high, p]


def _references(short: pandas.DataFrame) -> Iterator[str]:
    if short["method"].eq("dense").any():
        yield "dense"
    dropout = short[short["method"].map(rule_of).eq("dropout")]
    if not dropout.empty:
        main = kinds.named(short["kind"].iloc[0]).main
        yield str((main.sign * dropout.groupby("method", sort=False)[f"val_{main.name}"].mean()).idxmax())


def _budget(own: pandas.DataFrame, seconds: float) -> str:
    """The longest recipe that takes no more time, else the shortest one."""
    budgets = own.groupby("dataset", sort=False)[["time", "total_epochs"]].mean().sort_values("total_epochs")
    fitting = budgets[budgets["time"] <= ROOM * seconds]
    return str(budgets.index[0] if fitting.empty else fitting.index[-1])
