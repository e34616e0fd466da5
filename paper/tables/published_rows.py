"""Published errors and likelihoods of regressions beside ours: predictions by sampling of the UCI sets."""

from __future__ import annotations

import math
import re
from typing import Any

import pandas

from harness import kinds
from harness.kinds.regression import KIND
from paper.tables import published
from paper.tables.page import Cell, Table, mean, plain, text

DATASETS = {
    "uci-boston": "bostonHousing",
    "uci-naval": "naval-propulsion-plant",
    "uci-power": "power-plant",
    "uci-protein": "protein-tertiary-structure",
    "uci-wine": "wine-quality-red",
    **{f"uci-{name}": name for name in ("concrete", "energy", "kin8nm", "yacht")},
}
MODELS = {"mlp_50": "MLP-50", "mlp_100": "MLP-100"}
METHODS = {"dropout-mc (sampled)": "MC dropout"}

CAPTION = (
    "Ours (mean ± 95 % interval over splits) beside the published number (pub., mean ± standard error as printed), "
    "which is never averaged with ours. Verdict for each of the two: not comparable for fewer than "
    f"{published.SEEDS_NEEDED} splits or where no printed digit is significant; reproduced if our interval and 1.96 "
    "published standard errors, with half of the last printed digit, overlap; else better or worse, which is what ours "
    "is."
)


def reproduction(dataset: str, part: pandas.DataFrame) -> Table | None:
    """The table of one dataset, or None if no paper has a row of it.

    Args:
        dataset: Its name.
        part: Its rows of `summary.summarise`.
    """
    if part["kind"].iloc[0] != KIND.name or dataset not in DATASETS:
        return None
    printed, metrics = published.rows(), [metric for metric in KIND.metrics if metric.name != "loss"]
    columns, rows, notes, sources = ["Model", "Method", "n"], [], [], {}
    for metric in metrics:
        columns += [metric.heading, "pub.", "Verdict"]
    for row in part.itertuples():
        match = printed[
            printed["dataset"].eq(DATASETS[dataset])
            & printed["model"].eq(MODELS.get(row.model))
            & printed["method"].eq(METHODS.get(row.method))
        ]
        if match.empty:
            continue
        theirs = match.iloc[0]
        cells = [text(row.model), text(row.method), plain(row.n)]
        for metric in metrics:
            value, half = getattr(row, metric.name), getattr(row, f"{metric.name}_half")
            cells += [
                mean(value, half, digits=metric.digits),
                Cell(theirs[metric.name], number(theirs[metric.name])[0]),
            ]
            cells.append(text(verdict(metric, value, half, row.n, theirs[metric.name])))
        rows.append(cells)
        notes += [theirs["note"]] if theirs["note"] else []
        sources.setdefault(theirs["source"])
    notes += [f"Published numbers from {', '.join(sources)}."]
    return Table(f"Reproduction: {dataset}", CAPTION, columns, rows, notes=notes, last_text=True) if rows else None


def number(printed: str) -> tuple[float, float, float]:
    """Value, standard error and half of the last digit of "2.90 ± 0.18"."""
    value, error = printed.split(" ± ")
    digits = len(re.sub(r"^[^.]*\.?", "", value))
    return float(value), float(error), 0.5 * 10**-digits


def verdict(metric: kinds.Metric, ours: float, half: float, count: Any, printed: str) -> str:
    """Reproduced, better, worse or not comparable (with why), by the rule of CAPTION."""
    value, error, rounding = number(printed)
    if count < published.SEEDS_NEEDED or math.isnan(half):
        return "not comparable (splits)"
    if value == 0:
        return "not comparable (digits)"
    difference = ours - value
    if abs(difference) <= half + 1.96 * error + rounding:
        return "reproduced"
    return "better" if difference * metric.sign > 0 else "worse"
