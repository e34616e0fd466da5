"""Which methods no other beats in accuracy and cost at once."""

from __future__ import annotations

import pandas

COSTS = {
    "kept_ratio": "kept parameters (%)",
    "macs_ratio": "MACs (% of dense)",
    "latency_ratio": "latency (% of dense)",
}


def pareto(summary: pandas.DataFrame) -> pandas.DataFrame:
    """Mean top-1 against each cost, both in percent, with the members of the front marked.

    Args:
        summary: `summary.summarise`.

    Returns:
        dataset, model, method, cost, value, value_half, top1, top1_half, on_front.
    """
    pruned = summary[summary["evaluation"].eq("pruned")]
    parts = []
    for cost in COSTS:
        part = pruned[["dataset", "model", "method"]].copy()
        part["cost"] = cost
        part["value"], part["value_half"] = 100 * pruned[cost], 100 * pruned[f"{cost}_half"]
        part["top1"], part["top1_half"] = 100 * pruned["top1"], 100 * pruned["top1_half"]
        part = part.dropna(subset=["value", "top1"])
        part["on_front"] = front(part)
        parts.append(part)
    return pandas.concat(parts, ignore_index=True)


def front(points: pandas.DataFrame) -> pandas.Series:
    """Whether each point is on the front of its dataset and model: no other is as good in both and better in one.

    Args:
        points: Columns dataset, model, value (lower is better) and top1 (higher is better).
    """
    on_front = pandas.Series(True, index=points.index)
    for _, group in points.groupby(["dataset", "model"], sort=False):
        cost, gain = group["value"].to_numpy(), group["top1"].to_numpy()
        no_worse = (cost[:, None] <= cost) & (gain[:, None] >= gain)
        better = (cost[:, None] < cost) | (gain[:, None] > gain)
        on_front[group.index] = ~(no_worse & better).any(axis=0)
    return on_front
