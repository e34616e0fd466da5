"""The claims of EDropout's abstract (arXiv:2006.04270), evaluated on our own dense and pruned networks."""

from __future__ import annotations

from collections.abc import Iterator

import pandas

from harness.kinds.classification import KIND as CLASSIFICATION
from paper.rows.summary import FEW_SEEDS, half_width
from paper.statistics.paired import TOO_LITTLE, learned
from paper.tables.page import NONE, Cell, Table, mean, text

PRUNED, PRUNED_BY_AUTHORS, DROP1, DROP5 = "pruned", "pruned_by_authors", "drop1", "drop5"
CLAIMS = {
    PRUNED: ("more than 50 % of the parameters pruned", "> 50 %"),
    PRUNED_BY_AUTHORS: ("the same, counted as the authors do", "> 50 %"),
    DROP1: ("top-1 drops by less than 5 points", "< 5"),
    DROP5: ("top-5 drops by less than 1 point", "< 1"),
}
LIMITS = {PRUNED: 50.0, PRUNED_BY_AUTHORS: 50.0, DROP1: 5.0, DROP5: 1.0}

CAPTION = (
    "The abstract says that more than 50 % of the parameters are pruned on average with less than 5 % drop in top-1 "
    "and less than 1 % in top-5 accuracy. Ours: mean over seeds with 95 % interval; drops in percentage points against "
    "the dense network of the same seed. A claim holds or fails by the mean; it is marked where the interval crosses "
    "the limit. The authors count the kept filters of a layer without the input channels that the layer before it lost."
)


def claims(rows: pandas.DataFrame, dataset: str) -> Table | None:
    """A table of claims for one dataset, or None if it holds no EDropout row or is no classification.

    Args:
        rows: Tidy rows (`summary.read_rows`).
        dataset: Name of the dataset.
    """
    rows = rows[(rows["dataset"] == dataset) & rows["evaluation"].eq("pruned")]
    if not rows["kind"].eq(CLASSIFICATION.name).all():
        return None
    methods = [name for name in rows["method"].unique() if name.split("-")[0] == "edropout"]
    if not methods:
        return None
    lines = [line for method in methods for line in _lines(rows, method)]
    columns = ["Method", "Model", "Claim", "Limit", "Ours", "Result"]
    return Table(f"Claims of the abstract: {dataset}", CAPTION, columns, lines, left=4, last_text=True)


def paired(rows: pandas.DataFrame, method: str) -> pandas.DataFrame:
    """What the claims are about, one row per (model, seed): pruned percentages and drops in points, NaN for holes."""
    key = ["model", "seed"]
    pruned = rows[rows["method"] == method].set_index(key)
    dense = rows[rows["method"] == "dense"].set_index(key).reindex(pruned.index)
    return pandas.DataFrame(
        {
            PRUNED: 100 * (1 - pruned["kept_ratio"]),
            PRUNED_BY_AUTHORS: 100 * (1 - pruned["authors_kept_ratio"]),
            DROP1: 100 * (dense["top1"] - pruned["top1"]),
            DROP5: 100 * (dense["top5"] - pruned["top5"]),
        }
    ).reset_index()


def _lines(rows: pandas.DataFrame, method: str) -> Iterator[list[Cell]]:
    values = paired(rows, method)
    models = list(values["model"].unique())
    learnt = {model: grounds for (_, model), grounds in learned(rows).items()}
    groups = [(model, values[values["model"] == model]) for model in models]
    if len(models) > 1:
        # A seed counts only where every model has it, so that the mean is over the same networks.
        over_models = values.groupby("seed", sort=False)[list(CLAIMS)].agg(lambda column: column.mean(skipna=False))
        groups.append((name := f"mean of {len(models)}", over_models))
        learnt[name] = all(learnt[model] for model in models)
    for model, group in groups:
        for claim, (words, limit) in CLAIMS.items():
            if claim == PRUNED_BY_AUTHORS and group[claim].isna().all():
                continue
            ours, result = judge(claim, group[claim].dropna())
            if claim in (DROP1, DROP5) and not learnt[model]:
                result = f"{TOO_LITTLE}: the dense network is near chance"
            yield [text(method), text(model), text(words), text(limit), ours, text(result)]


def judge(claim: str, values: pandas.Series) -> tuple[Cell, str]:
    """The mean with its interval, and holds, fails, too little to say, or not evaluated."""
    if values.empty:
        return Cell(NONE), "not evaluated: no finished pair of seeds"
    limit, above = LIMITS[claim], claim in (PRUNED, PRUNED_BY_AUTHORS)
    average = values.mean()
    half = float(half_width(pandas.Series([values.std()]), pandas.Series([len(values)])).iloc[0])
    holds = average > limit if above else average < limit
    result = "holds" if holds else "fails"
    if len(values) < FEW_SEEDS:
        result = f"{TOO_LITTLE}: fewer than {FEW_SEEDS} seeds"
    elif abs(average - limit) < half:
        result += " (interval crosses the limit)"
    return mean(average, half, digits=2), result
