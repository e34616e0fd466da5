"""Published numbers beside ours: which row of a paper belongs to which of ours, and whether it was reproduced."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

PATH = Path(__file__).parent.with_name("published.csv")

DATASETS = {
    "kuzushiji": "Kuzushiji-MNIST",
    "fashion": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "flowers": "Flowers-102",
    "mnist-lenet_300": "MNIST",
    "mnist-lenet5": "MNIST",
}
MODELS = {
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101)},
    **{"alexnet": "AlexNet", "squeezenet1_1": "SqueezeNet"},
    **{"lenet_300_100": "LeNet-300-100", "lenet5": "LeNet-5-Caffe"},
}
METHODS = {
    "dense": "dense",
    "deep_compression": "DeepCompression",
    "edropout": "EDropout(P)",
    "edropout (full)": "EDropout(F)",
    "ipruning": "IPruning(P)",
    "ipruning (full)": "IPruning(F)",
    "deep_compression-12x": "Pruning",
    "sparse_variational": "SparseVD",
}
"""Only these names are the published experiments: a variant such as `edropout-30` or `cifar10-small` is not."""

SEEDS_NEEDED = 3
TOLERANCE = 1.0
WIDEST = 2.0
KEPT_TOLERANCE = 5.0
PART = 0.5
"""Of the published error, or kept percentage, where that is less than a tolerance: 1 point says nothing of 0.75 %."""
SIZE_TOLERANCE = 0.05

RULE = (
    f"Verdict on top-1. Not comparable: fewer than {SEEDS_NEEDED} finished seeds, a 95 % interval wider than "
    f"±{WIDEST:g} points, a kept percentage more than {KEPT_TOLERANCE:g} points or {PART:.0%} from the published one, "
    f"or a dense network whose number of parameters differs by more than {SIZE_TOLERANCE:.0%}. Otherwise reproduced if "
    f"the published number lies in our interval or within {TOLERANCE:g} point, and {PART:.0%} of the published error, "
    "of our mean, else lower or higher, which is where ours lies. Published numbers are printed without a spread."
)


@dataclass(frozen=True)
class Published:
    """One row of a paper, as printed (percent, millions), with its source and our note on it."""

    loss: str
    top1: str
    top3: str
    top5: str
    kept_percent: str
    params_millions: str
    dense_millions: float
    source: str
    note: str


@functools.cache
def rows() -> pandas.DataFrame:
    """All published rows; where both papers print one, EDropout's comes first."""
    return pandas.read_csv(PATH, dtype=str, keep_default_na=False).sort_values("paper", kind="stable")


def find(dataset: str, model: str, method: str) -> Published | None:
    """The published row of our (dataset, model, method), or None."""
    if dataset not in DATASETS or model not in MODELS or method not in METHODS:
        return None
    printed = rows()
    place = printed[(printed["dataset"] == DATASETS[dataset]) & (printed["model"] == MODELS[model])]
    match = place[place["method"] == METHODS[method]]
    if match.empty:
        return None
    row = match.iloc[0]
    dense = place[(place["method"] == "dense") & (place["paper"] == row["paper"])].iloc[0]
    fields = {name: row[name] for name in ("loss", "top1", "top3", "top5", "kept_percent", "params_millions")}
    return Published(**fields, dense_millions=float(dense["params_millions"]), source=row["source"], note=row["note"])


def verdict(ours: Any, theirs: Published) -> str:
    """Reproduced, lower, higher or not comparable (with why), by RULE.

    Args:
        ours: A row of `summary.summarise`; fractions.
        theirs: The published row; percent.
    """
    kept = ours.kept_ratio if math.isnan(ours.authors_kept_ratio) else ours.authors_kept_ratio
    top1, half = 100 * ours.top1, 100 * ours.top1_half
    if ours.n < SEEDS_NEEDED:
        return "not comparable (seeds)"
    if half > WIDEST:
        return "not comparable (interval)"
    if abs(ours.dense_parameters / 1e6 / theirs.dense_millions - 1) > SIZE_TOLERANCE:
        return "not comparable (network)"
    published_kept, published_top1 = float(theirs.kept_percent), float(theirs.top1)
    if abs(100 * kept - published_kept) > min(KEPT_TOLERANCE, PART * published_kept):
        return "not comparable (kept %)"
    difference = top1 - published_top1
    if abs(difference) <= max(min(TOLERANCE, PART * (100 - published_top1)), half):
        return "reproduced"
    return "lower" if difference < 0 else "higher"
