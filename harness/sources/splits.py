"""Which example belongs to which split: seeded, stratified, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import torch
from torch import Tensor

from harness.data.prepared import DataError


def stratified(labels: Tensor, count: int, *, seed: int, key: str, leave: int = 0) -> Tensor:
    """Choose `count` examples with the classes in the proportions of `labels`.

    Shares that are no whole numbers are rounded by the largest remainder, ties going to the lower class; but no class
    is passed over that has an example to give, where `count` suffices for all of them.

    Args:
        labels: (examples,) int64.
        count: How many to choose.
        seed: Seed of the choice.
        key: The config key that asks for it, for the error.
        leave: How many examples of each class must be left over, fewer being chosen where it must be.

    Returns:
        (examples,) bool, True = chosen.

    Raises:
        DataError: there are fewer examples than that.
    """
    if not 0 < count <= len(labels):
        raise DataError(f"{key} asks for {count} examples and there are {len(labels)}: lower it")
    sizes = torch.bincount(labels)
    most = (sizes - leave).clamp_min(0)
    least = most.clamp_max(1 if count >= len(sizes) else 0)
    exact = sizes.double() * count / len(labels)
    shares = exact.floor().long().clamp(least, most)
    while (missing := min(count, int(most.sum())) - int(shares.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = shares < most if step > 0 else shares > least
        gain = torch.where(movable, step * (exact - shares), -torch.inf)
        shares[gain.argmax()] += step
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
