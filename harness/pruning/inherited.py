"""What another cell left, for methods that are compared with it: its kept ratio, its kept units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edropout.subnetworks import removal


def kept_ratio_of(metrics: Path) -> float:
    """Kept ratio of the parameters of another cell, from its metrics.json.

    Raises:
        ValueError: the cell failed.
    """
    return _read_result(metrics)["size"]["kept_ratio"]


def macs_ratio_of(metrics: Path) -> float:
    """Share of the dense network's multiply-accumulates that another cell is left with, from its metrics.json.

    Raises:
        ValueError: the cell failed.
    """
    size = _read_result(metrics)["size"]
    return size["macs"] / size["dense_macs"]


def kept_units_of(metrics: Path, model: nn.Module) -> dict[str, Tensor]:
    """The units that another cell's network kept: layer -> bool, for every layer of `model` that can be cut.

    Args:
        metrics: metrics.json of the cell; the network is described beside it.
        model: A network of the same architecture.

    Raises:
        ValueError: the cell failed, or holds another architecture.
    """
    _read_result(metrics)
    description = json.loads(Path(metrics).with_name("model.json").read_text(encoding="utf-8"))
    kept = removal.kept_units(model)
    for units in kept.values():
        units[:] = True
    for name, indices in (description["kept"] or {}).items():
        if indices is None:
            continue
        if name not in kept or max(indices) >= len(kept[name]):
            raise ValueError(f"{metrics} was made with another architecture: its layer '{name}' does not fit")
        kept[name][:] = False
        kept[name][indices] = True
    return kept


def _read_result(metrics: Path) -> dict[str, Any]:
    content = json.loads(Path(metrics).read_text(encoding="utf-8"))
    if content["status"] != "done":
        raise ValueError(f"{metrics} is the result of a failed cell ({content['error']}): repair that cell first")
    return content
