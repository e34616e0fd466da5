"""Critical differences (Demsar 2006): are methods ranked differently over many (dataset, model) pairs?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas
import scikit_posthocs
from scipy import stats

from paper.rows.summary import GROUP, scored

METHODS_NEEDED = 3
BLOCKS_NEEDED = 5


@dataclass(frozen=True)
class Ranking:
    """Average ranks (1 is best) with what is needed to tell them apart.

    Attributes:
        ranks: Average rank by method.
        nemenyi: Pairwise p-values of Nemenyi's test, methods x methods.
        friedman_p: p-value of Friedman's test that all methods rank alike.
        critical_difference: Smallest difference of average ranks that is significant at 5 %.
        blocks: Number of (dataset, model) pairs.
        notes: Sentences on what was left out or is weak.
    """

    ranks: pandas.Series
    nemenyi: pandas.DataFrame
    friedman_p: float
    critical_difference: float
    blocks: int
    notes: list[str]


def ranking(summary: pandas.DataFrame) -> Ranking | str:
    """Friedman's test and Nemenyi's post-hoc test on mean main metrics, or a sentence that says why there are none.

    Args:
        summary: `summary.summarise`.
    """
    pruned = scored(summary[summary["evaluation"].eq("pruned")])
    order = list(pruned["method"].unique())
    matrix = pruned.pivot(index=GROUP[:2], columns="method", values="gain")[order]
    holes = [method for method in order if matrix[method].isna().any()]
    matrix = matrix.drop(columns=holes)
    blocks, methods = matrix.shape
    if methods < METHODS_NEEDED or blocks < BLOCKS_NEEDED:
        return (
            f"Too little to say about ranks: they need {METHODS_NEEDED} methods that finished on each of at least "
            f"{BLOCKS_NEEDED} (dataset, model) pairs; there are {methods} on {blocks}."
        )
    notes = [f"Left out of the ranking, not finished on every pair: {', '.join(holes)}."] if holes else []
    friedman = stats.friedmanchisquare(*(matrix[method] for method in matrix)).pvalue
    if friedman >= 0.05:
        return f"Friedman's test finds no difference among {methods} methods on {blocks} pairs (p = {friedman:.3f})."
    quantile = stats.studentized_range.ppf(0.95, methods, math.inf) / math.sqrt(2)
    return Ranking(
        ranks=matrix.rank(axis=1, ascending=False).mean().rename("rank"),
        nemenyi=scikit_posthocs.posthoc_nemenyi_friedman(matrix.reset_index(drop=True)),
        friedman_p=friedman,
        critical_difference=quantile * math.sqrt(methods * (methods + 1) / (6 * blocks)),
        blocks=blocks,
        notes=notes,
    )
