"""Whether the numbers of one result file can be true together; catches damage and edits by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from harness.runs.result import EVALUATIONS, kind_of


def objections(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a clause for everything that contradicts itself in a result that is valid under the schema."""
    yield from _configuration(metrics)
    if metrics["status"] != "done":
        return
    for section in EVALUATIONS:
        if metrics.get(section):
            yield from (f"{section}.{clause}" for clause in kind_of(metrics).objections(metrics[section]))
    yield from _size(metrics["size"])
    if metrics.get("budget"):
        budget = metrics["budget"]
        if abs(budget["dense_epochs"] + budget["own_epochs"] - budget["total_epochs"]) > 1e-6:
            yield "budget.total_epochs is not dense_epochs + own_epochs"


def _configuration(metrics: Mapping[str, Any]) -> Iterator[str]:
    """The hash must be that of the configuration beside it (a method in another language may leave that out)."""
    if "config" in metrics:
        keys = ("dataset", "model", "method", "seed", "protocol", "config")
        content = json.dumps({key: metrics[key] for key in keys}, sort_keys=True)
        # As harness.plan.configuration takes it; a test holds the two equal.
        if hashlib.sha256(content.encode()).hexdigest()[:16] != metrics["config_hash"]:
            yield "config_hash is not the hash of the configuration in the file"


def _size(size: Mapping[str, Any]) -> Iterator[str]:
    ratio = size["nonzero"] / size["dense_parameters"]
    if abs(size["kept_ratio"] - ratio) > 1e-6:
        yield f"size.kept_ratio = {size['kept_ratio']} is not nonzero / dense_parameters = {ratio:.6f}"
    if size["nonzero"] > size["parameters"]:
        yield f"size.nonzero = {size['nonzero']} is above size.parameters = {size['parameters']}"
