"""Of the variants that a table tried of a method, the one that the validation set prefers; the test set has no say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas

from paper.rows.row import kind_of

COLUMNS = ["dataset", "model", "method", "variant", "tried", "val", "n", "planned", "shown"]


def attempts(outcomes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any] | None]]) -> pandas.DataFrame:
    """One row per variant of a tuned method: mean of the main validation metric over the finished seeds, and whether
    it is shown.

    Shown is the best of those with the most finished seeds: a variant that fails for a seed is no choice.

    Args:
        outcomes: Planned cells, each with its result or None. Cells without `tuned` are of methods that were not tuned.
    """
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    signs: dict[tuple[str, str, str], int] = {}
    for cell, metrics in outcomes:
        if "tuned" not in cell:
            continue
        key, main = (cell["dataset"], cell["model"], cell["tuned"]["method"]), kind_of(cell).main
        signs[key] = main.sign
        variant = groups.setdefault(key, {}).setdefault(
            cell["method"], {"tried": words(cell["tuned"]["tried"]), "values": [], "planned": 0}
        )
        variant["planned"] += 1
        if metrics is not None and (metrics.get("val") or {}).get(main.name) is not None:
            variant["values"].append(metrics["val"][main.name])
    rows = []
    for key, tried in groups.items():
        scores = {name: (len(one["values"]), signs[key] * _mean(one["values"])) for name, one in tried.items()}
        best = max(scores, key=scores.__getitem__)
        for name, one in tried.items():
            count = len(one["values"])
            value = _mean(one["values"]) if count else None
            rows.append([*key, name, one["tried"], value, count, one["planned"], name == best])
    return pandas.DataFrame(rows, columns=COLUMNS)


def shown(cells: Iterable[Mapping[str, Any]], attempts: pandas.DataFrame) -> list[Mapping[str, Any] | None]:
    """The cells as rows name them: those of a variant that is shown under the name of its method, others are None."""
    best = attempts[attempts["shown"].astype(bool)]
    chosen = set(zip(best["dataset"], best["model"], best["variant"], strict=True))
    found: list[Mapping[str, Any] | None] = []
    for cell in cells:
        if "tuned" not in cell:
            found.append(cell)
        elif (cell["dataset"], cell["model"], cell["method"]) in chosen:
            found.append({**cell, "method": cell["tuned"]["method"], "tried": words(cell["tuned"]["tried"])})
        else:
            found.append(None)
    return found


def words(tried: Mapping[str, Any]) -> str:
    """`rate 0.2, lr_factor 1`."""
    return ", ".join(f"{key} {value}" for key, value in tried.items())


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
