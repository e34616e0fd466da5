"""Which methods no other beats in accuracy and cost at once."""

from __future__ import annotations

import pandas

from paper.rows.summary import scored

COSTS = {
    "kept_ratio": "kept parameters (%)",
    "macs_ratio": "MACs (% of dense)",
    "latency_ratio": "latency (% of dense)",
    "cost_ratio": "training time (% of dense)",
}


def pareto(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Mean main metric, as it is shown, against each cost in percent, with the members of the front marked.

    Args:
        summary: `summary.summarise`.

    Returns:
        dataset, model, method, kind, cost, value, value_half, score, score_half, on_front.
    """
    pruned = scored(summary[summary["evaluation"].eq("pruned")])
    parts = []
    for cost in COSTS:
        part = pruned[["dataset", "model", "method", "kind"]].copy()
        part["cost"] = cost
        part["value"], part["value_half"] = 100 * pruned[cost], 100 * pruned[f"{cost}_half"]
        part[["score", "score_half", "gain"]] = pruned[["score", "score_half", "gain"]]
        part = part.dropna(subset=["value", "score"])
        part["on_front"] = front(part)
        parts.append(part.drop(columns="gain"))
    return pandas.concat(parts, ignore_index=True)


def front(points: pandas.DataFrame) -> pandas.Series:
    """Whether each point is on the front of its dataset and model: no other is as good in both and better in one.

    Args:
        points: Columns dataset, model, value (lower is better) and gain (higher is better).
    """
    on_front = pandas.Series(True, index=points.index)
    for _, group in points.groupby(["dataset", "model"], sort=False):
        cost, gain = group["value"].to_numpy(), group["gain"].to_numpy()
        no_worse = (cost[:, None] <= cost) & (gain[:, None] >= gain)
        better = (cost[:, None] < cost) | (gain[:, None] > gain)
        on_front[group.index] = ~(no_worse & better).any(axis=0)
    return on_front
