"""One result file as tidy rows: the column names of results/paper/<table>.csv are defined here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness import kinds
from harness.plan.code import digest

CELL = [
    *("dataset", "model", "method", "tried", "evaluation", "seed"),
    *("status", "error", "config_hash", "protocol", "kind", "data"),
]
MEASURED = [
    *("kept_ratio", "parameters", "dense_parameters", "nonzero", "macs", "dense_macs"),
    *("file_bytes", "dense_file_bytes", "compressed_bytes"),
    *("dense_epochs", "own_epochs", "total_epochs"),
    *("latency_ms", "dense_latency_ms", "latency_batch", "latency_threads", "latency_device"),
    *("seconds", "train_seconds", "train_cpu_seconds", "step_ms", "authors_kept_ratio"),
    *("hardware", "torch", "commit", "dirty", "path"),
]
"""What is measured whatever the kind of task. Fractions are fractions, times say their unit, MACs are
multiply-accumulates of one forward pass of one example."""

COUNTS = [
    *("seed", "protocol", "examples", "parameters", "dense_parameters", "nonzero", "macs", "dense_macs"),
    *("file_bytes", "dense_file_bytes", "compressed_bytes", "latency_batch", "latency_threads"),
]

FULL = " (full)"
"""Suffix of the row that evaluates all weights of a method that keeps them (the paper's F beside its P)."""
SAMPLED = " (sampled)"
"""Suffix of the row whose predictions average passes that draw."""


def columns(names: Iterable[str], *, calibrated: bool = False) -> list[str]:
    """The columns of a table whose cells are of the kinds `names`, and some of which measured their calibration."""
    wanted = set(names)
    found = [kinds.named(name) for name in kinds.names() if name in wanted]
    evaluation = [metric.name for kind in found for metric in kind.metrics]
    evaluation += [metric.name for kind in found for metric in kind.calibration if calibrated]
    val = ["val_loss", *(f"val_{kind.main.name}" for kind in found)]
    return [*CELL, *dict.fromkeys([*evaluation, "examples", *val, "chance"]), *MEASURED]


def rule_of(method: str) -> str:
    """The rule that a variant belongs to: `l1-30` is a variant of `l1`."""
    return method.partition("-")[0]


def kind_of(cell: Mapping[str, Any]) -> kinds.Kind:
    """The kind of a planned cell."""
    return kinds.named(cell.get("kind", kinds.DEFAULT))


def unfinished(cell: Mapping[str, Any], status: str, error: str) -> dict[str, Any]:
    """The row of a cell without numbers: `status` is failed, missing or invalid."""
    kind = kind_of(cell)
    row = {**dict.fromkeys(columns([kind.name])), "kind": kind.name}
    row |= {key: cell[key] for key in ("dataset", "model", "method", "seed", "config_hash", "path")}
    return row | {"evaluation": "pruned", "status": status, "error": error}


def finished(cell: Mapping[str, Any], metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a cell that is done."""
    size, budget = metrics["size"], metrics.get("budget") or {}
    latency, val = metrics.get("latency") or {}, metrics.get("val") or {}
    time, provenance = metrics.get("time") or {}, metrics.get("provenance") or {}
    row = unfinished(cell, "done", "") | {key: size.get(key) for key in size}
    row |= {key: metrics["test"].get(key) for key in _evaluation(cell)}
    main = kind_of(cell).main.name
    row |= {"val_loss": val.get("loss"), f"val_{main}": val.get(main)}
    row |= {"protocol": metrics["protocol"], "chance": metrics.get("chance")}
    row["data"] = digest((metrics.get("config") or {}).get("data"))[:8]
    row |= {key: budget.get(key) for key in ("dense_epochs", "own_epochs", "total_epochs")}
    row |= {key: time.get(key) for key in ("seconds", "train_seconds", "train_cpu_seconds", "step_ms")}
    row |= {key: provenance.get(key) for key in ("commit", "dirty")}
    hardware = provenance.get("hardware") or {}
    row["hardware"] = hardware.get("gpu") or hardware.get("processor")
    row["torch"] = (provenance.get("versions") or {}).get("torch")
    if latency:
        row |= {"latency_ms": latency["model"]["median_ms"], "dense_latency_ms": latency["dense"]["median_ms"]}
        row |= {"latency_batch": latency["batch_size"], "latency_threads": latency["threads"]}
        row |= {"latency_device": latency["device"]}
    row["authors_kept_ratio"] = (metrics.get("extra") or {}).get("authors_kept_ratio")
    return row


def _evaluation(cell: Mapping[str, Any]) -> list[str]:
    kind = kind_of(cell)
    return [*(metric.name for metric in (*kind.metrics, *kind.calibration)), "examples"]


def full(pruned: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """The second row of a method that also evaluates all its weights: size and speed are those of the dense network.

    Args:
        pruned: The first row.
        metrics: The result, or None if the cell is not done.
    """
    row = dict(pruned) | {"method": pruned["method"] + FULL, "evaluation": "full"}
    if pruned["status"] != "done":
        return row
    evaluation = (metrics or {}).get("full_test")
    if not evaluation:
        missing = {**row, "seed": pruned["seed"]}
        return unfinished(missing, "missing", "no evaluation with all weights") | {"evaluation": "full"}
    row |= {key: evaluation.get(key) for key in _evaluation(pruned)}
    row |= dict.fromkeys(("val_loss", f"val_{kind_of(pruned).main.name}", "compressed_bytes", "authors_kept_ratio"))
    row |= {"parameters": row["dense_parameters"], "nonzero": row["dense_parameters"], "kept_ratio": 1.0}
    row |= {"macs": row["dense_macs"], "file_bytes": row["dense_file_bytes"], "latency_ms": row["dense_latency_ms"]}
    return row


def sampled(pruned: Mapping[str, Any], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
    """The row of predictions by sampling of a method that has them: what is measured in one pass alone is left out.

    Args:
        pruned: The first row.
        metrics: The result, or None if the cell is not done.
    """
    row = dict(pruned) | {"method": pruned["method"] + SAMPLED, "evaluation": "sampled"}
    if pruned["status"] != "done":
        return row
    evaluation = (metrics or {}).get("sampled_test")
    if not evaluation:
        return unfinished(row, "missing", "no evaluation by sampling") | {"evaluation": "sampled"}
    row |= {key: evaluation.get(key) for key in _evaluation(pruned)}
    one_pass = ("macs", "latency_ms", "val_loss", f"val_{kind_of(pruned).main.name}", "compressed_bytes")
    return row | dict.fromkeys((*one_pass, "authors_kept_ratio"))


def calibrated(rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether some row has a metric of calibration."""
    return any(row.get(metric.name) is not None for row in rows for metric in kind_of(row).calibration)
