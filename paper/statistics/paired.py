"""Paired tests over seeds: each method against the reference on the same network and data."""

from __future__ import annotations

import math
import warnings

import numpy
import pandas
from scipy import stats
from statsmodels.stats.multitest import multipletests

from harness import kinds
from paper.rows.summary import scored

RESAMPLES = 9999
PAIRS_FOR_T, PAIRS_FOR_RANKS = 3, 6
"""Below the first nothing is said. Below the second Wilcoxon's test cannot reach 5 % whatever the data, and a bootstrap
draws from too few values to know their spread."""
TOO_LITTLE = "too little to say"
ALPHA = 0.05

COLUMNS = [
    *("dataset", "model", "method", "kind", "reference", "pairs", "difference", "t_low", "t_high"),
    *("bootstrap_low", "bootstrap_high", "t_p", "wilcoxon_p", "t_p_holm", "wilcoxon_p_holm", "result"),
]


def reference_of(rows: pandas.DataFrame) -> str:
    """What the others are compared with: EDropout if it was run, else the dense network, else the first method."""
    methods = list(rows["method"])
    return next((name for name in ("edropout", "dense") if name in methods), methods[0])


def paired_tests(rows: pandas.DataFrame, reference: str | None = None) -> pandas.DataFrame:
    """Differences in the main metric (as shown, method minus reference) over the seeds that both finished.

    Student's paired t and Wilcoxon's signed-rank test, each corrected by Holm over all comparisons of the table;
    95 % intervals of the mean difference by t and by the percentile bootstrap over seeds. `result` goes by the
    corrected t test, and is "too little to say" for fewer than three pairs or where the dense network has learned
    hardly anything.

    Args:
        rows: Tidy rows (`summary.read_rows`).
        reference: The method that the others are compared with; None for that of `reference_of`.

    Returns:
        COLUMNS, one line per comparison; NaN where there are too few pairs for a number.
    """
    rows = rows[rows["evaluation"].eq("pruned")]
    grounds = learned(rows)
    reference = reference_of(rows) if reference is None else reference
    wide = scored(rows).pivot(index=["dataset", "model", "seed"], columns="method", values="score")
    kind = rows.groupby("dataset", sort=False)["kind"].first()
    lines = []
    for place in rows[["dataset", "model"]].drop_duplicates().itertuples(index=False):
        block = wide.loc[(place.dataset, place.model)]
        for method in rows["method"].unique():
            if method != reference:
                difference = (block[method] - block[reference]).dropna().to_numpy()
                lines.append([place.dataset, place.model, method, kind[place.dataset], reference, *compare(difference)])
    table = pandas.DataFrame(lines, columns=COLUMNS[:-3])
    for test in ("t_p", "wilcoxon_p"):
        table[f"{test}_holm"] = holm(table[test])
    table["result"] = [
        result_of(row) if grounds[row.dataset, row.model] else f"{TOO_LITTLE}: the dense network is near chance"
        for row in table.itertuples()
    ]
    return table[COLUMNS]


def learned(rows: pandas.DataFrame) -> dict[tuple[str, str], bool]:
    """Whether the dense network of each (dataset, model) is clearly better than chance; True where that is unknown."""
    found = {}
    for place, part in rows.groupby(["dataset", "model"], sort=False):
        main = kinds.named(part["kind"].iloc[0]).main
        dense = part.loc[part["method"].eq("dense"), main.name].mean()
        chance = part["chance"].mean() if "chance" in part else math.nan
        found[place] = math.isnan(dense) or math.isnan(chance) or main.beats(dense, chance)
    return found


def compare(difference: numpy.ndarray) -> tuple[float, ...]:
    """Pairs, mean, t interval, bootstrap interval and both p-values of paired differences."""
    pairs = len(difference)
    if pairs < PAIRS_FOR_T:
        return (pairs, difference.mean() if pairs else math.nan, *([math.nan] * 6))
    if not difference.any():
        # Equal in every seed: no test is defined, and nothing speaks for a difference.
        return (pairs, *[0.0] * 3, *[math.nan] * 2, 1.0, math.nan)
    with warnings.catch_warnings():
        # Differences that hardly vary make scipy warn about lost precision; the p-value is right about their size.
        warnings.simplefilter("ignore", RuntimeWarning)
        test = stats.ttest_1samp(difference, 0.0)
        interval = test.confidence_interval(0.95)
        if pairs < PAIRS_FOR_RANKS:
            return (pairs, difference.mean(), *interval, *[math.nan] * 2, test.pvalue, math.nan)
        rank = stats.wilcoxon(difference)
    bootstrap = stats.bootstrap(
        (difference,), numpy.mean, n_resamples=RESAMPLES, method="percentile", rng=numpy.random.default_rng(0)
    ).confidence_interval
    bounds = (interval.low, interval.high, bootstrap.low, bootstrap.high)
    return (pairs, difference.mean(), *bounds, test.pvalue, rank.pvalue)


def holm(values: pandas.Series) -> pandas.Series:
    """Holm's correction over the tests that could be made."""
    corrected = values.copy()
    known = values.notna()
    if known.any():
        corrected[known] = multipletests(values[known], method="holm")[1]
    return corrected


def result_of(row: object) -> str:
    """In words what a line with the corrected t test and the difference says."""
    if math.isnan(row.t_p_holm):
        return f"{TOO_LITTLE}: fewer than {PAIRS_FOR_T} seeds"
    if row.t_p_holm >= ALPHA:
        return "no difference shown"
    return "better" if row.difference * kinds.named(row.kind).main.sign > 0 else "worse"
