"""Means over seeds with their 95 % intervals, in the plan's order."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy
import pandas
from scipy import stats

from harness import kinds
from paper.rows.row import COUNTS

GROUP = ["dataset", "model", "method"]
FEW_SEEDS = 3
"""Below this many seeds an interval says next to nothing, and a warning is shown."""

WORDS = ["error", "tried", "data", "commit", "config_hash", "path", "hardware", "torch", "latency_device"]
"""Columns that stay text even where all entries look like numbers or are empty."""

MEASURED = [
    *("kept_ratio", "nonzero", "macs", "macs_ratio"),
    *("latency_ms", "latency_ratio", "cost_ratio", "total_epochs", "authors_kept_ratio", "step_ms"),
]


def read_rows(path: Path | str) -> pandas.DataFrame:
    """The tidy rows that paper.rows.collect wrote, with the ratios to the dense network measured beside."""
    rows = pandas.read_csv(path, dtype=dict.fromkeys(WORDS, str))
    rows = rows.astype(dict.fromkeys(COUNTS, "Float64")).astype(dict.fromkeys(COUNTS, "float64"))
    rows["error"] = rows["error"].fillna("")
    # What was written before methods were tuned, and before a dataset said what its data are.
    rows["tried"] = rows["tried"].fillna("") if "tried" in rows else ""
    rows["data"] = rows["data"] if "data" in rows else rows["dataset"]
    if "kind" not in rows:
        rows["kind"] = kinds.DEFAULT  # Written before there were others.
    return rows.assign(
        macs_ratio=rows["macs"] / rows["dense_macs"],
        latency_ratio=rows["latency_ms"] / rows["dense_latency_ms"],
        cost_ratio=_cost(rows),
    )


def training_seconds(rows: pandas.DataFrame) -> pandas.Series:
    """What training took: time of processors where it was on one, otherwise on the wall."""
    if "train_cpu_seconds" not in rows:
        return pandas.Series(math.nan, index=rows.index)  # Written before it was measured.
    return rows["train_cpu_seconds"].where(rows["latency_device"].eq("cpu"), rows["train_seconds"])


def _cost(rows: pandas.DataFrame) -> pandas.Series:
    """Training time of each row, its share of the dense training that it starts from included, over that of the dense
    network of the same seed: of processors where training was on one, otherwise on the wall."""
    own = training_seconds(rows)
    cell = ["dataset", "model", "seed"]
    dense = rows[cell].assign(seconds=own, epochs=rows["total_epochs"])[rows["method"].eq("dense")]
    dense = rows[cell].merge(dense, on=cell, how="left").set_index(rows.index)
    return (own + dense["seconds"] * rows["dense_epochs"] / dense["epochs"]) / dense["seconds"]


def half_width(deviation: pandas.Series, count: pandas.Series) -> pandas.Series:
    """Half of the 95 % interval of a mean by Student's t; NaN for fewer than two values.

    Args:
        deviation: Sample standard deviations.
        count: Numbers of values.
    """
    freedom = (count - 1).where(count > 1)
    return pandas.Series(stats.t.ppf(0.975, freedom), index=count.index) * deviation / numpy.sqrt(count)


def aggregate(frame: pandas.DataFrame, by: list[str], values: list[str]) -> pandas.DataFrame:
    """Mean, half width of the interval and number of values of each group, groups in order of appearance.

    Returns:
        Columns `by`, and for each value `<value>`, `<value>_half` and `<value>_n`.
    """
    groups = frame.groupby(by, sort=False, observed=True)[values]
    mean, deviation, count = groups.mean(), groups.std(), groups.count()
    columns = {}
    for value in values:
        columns[value] = mean[value]
        columns[f"{value}_half"] = half_width(deviation[value], count[value])
        columns[f"{value}_n"] = count[value]
    return pandas.DataFrame(columns).reset_index()


def scored(frame: pandas.DataFrame) -> pandas.DataFrame:
    """With three columns more: `score`, the main metric of each row's kind as it is shown; `score_half`, its interval,
    where the frame has one; and `gain`, the score with the sign that makes larger better."""
    parts = []
    for name, part in frame.groupby("kind", sort=False):
        main = kinds.named(name).main
        score = main.scale * part[main.name]
        half = main.scale * part[f"{main.name}_half"] if f"{main.name}_half" in part else math.nan
        parts.append(pandas.DataFrame({"score": score, "score_half": half, "gain": main.sign * score}))
    new = pandas.concat(parts) if parts else pandas.DataFrame(columns=["score", "score_half", "gain"], dtype=float)
    return frame.join(new)


def main_metrics(names: Iterable[str]) -> str:
    """The main metrics of some kinds in words, each once."""
    return ", ".join(dict.fromkeys(kinds.named(name).main.words for name in names))


def summarise(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One line per (dataset, model, method): `aggregate` of all numbers over the finished seeds, `n`, `planned` seeds.

    Groups without a finished seed stay, with NaN: a hole is shown, not hidden.
    """
    rows = rows.assign(done=rows["status"].eq("done"))
    found = [kinds.named(name) for name in rows["kind"].unique()]
    metrics = [metric.name for kind in found for metric in kind.metrics]
    metrics += [metric.name for kind in found for metric in kind.calibration if metric.name in rows]
    chance = ["chance"] if "chance" in rows else []
    table = aggregate(rows, GROUP, [*dict.fromkeys(metrics), *chance, *MEASURED])
    counts = rows.groupby(GROUP, sort=False)["done"].agg(n="sum", planned="size").reset_index()
    details = ["evaluation", "kind", "tried", "dense_parameters", "latency_batch", "latency_device"]
    first = rows.groupby(GROUP, sort=False)[details].first().reset_index()
    return table.merge(counts, on=GROUP).merge(first, on=GROUP)


def problems(rows: pandas.DataFrame) -> list[str]:
    """A line for each planned cell without numbers."""
    holes = rows[rows["status"].ne("done") & rows["evaluation"].eq("pruned")]
    return [
        f"{row.dataset}/{row.model}/{row.method}/seed{int(row.seed)} {row.status}: {row.error}"
        for row in holes.itertuples()
    ]


def seed_warning(summary: pandas.DataFrame) -> str | None:
    """A sentence if some rows with numbers rest on too few seeds for their intervals to mean much."""
    few = summary[summary["n"].between(1, FEW_SEEDS - 1)]
    if few.empty:
        return None
    return (
        f"Too few seeds: {len(few)} of {len(summary)} rows rest on fewer than {FEW_SEEDS} finished seeds. Their "
        "intervals are missing or very wide, and no verdict or test should be read from them."
    )
