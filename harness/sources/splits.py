"""Which example belongs to which split: seeded, stratified, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from harness.data.prepared import DataError


def stratified(labels: Tensor, count: int, *, seed: int, key: str) -> Tensor:
    """Choose `count` examples with the classes in the proportions of `labels`.

    Shares that are no whole numbers are rounded by the largest remainder, ties going to the lower class.

    Args:
        labels: (examples,) int64.
        count: How many to choose.
        seed: Seed of the choice.
        key: The config key that asks for it, for the error.

    Returns:
        (examples,) bool, True = chosen.

    Raises:
        DataError: there are fewer examples than that.
    """
    if not 0 < count <= len(labels):
        raise DataError(f"{key} asks for {count} examples and there are {len(labels)}: lower it")
    sizes = torch.bincount(labels)
    exact = sizes.double() * count / len(labels)
    shares = exact.floor().long()
    remainder = (exact - shares).sort(descending=True, stable=True).indices
    shares[remainder[: count - int(shares.sum())]] += 1
    return per_class(labels, shares.tolist(), seed=seed)


def per_class(labels: Tensor, counts: Sequence[int], *, seed: int) -> Tensor:
    """Choose `counts[c]` examples of each class c at random.

    Returns:
        (examples,) bool, True = chosen.

    Raises:
        DataError: a class has fewer examples.
    """
    # The legacy generator's stream is frozen by NumPy's policy; the newer ones may change with a release.
    random = numpy.random.RandomState(seed)
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for number, count in enumerate(counts):
        members = (labels == number).nonzero().squeeze(1)
        if count > len(members):
            raise DataError(f"class {number} has {len(members)} examples and the split needs {count} of it: add images")
        chosen[members[torch.from_numpy(random.permutation(len(members))[:count])]] = True
    return chosen
