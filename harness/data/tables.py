"""Batches of the rows of a table that lies in memory: features and a number or a class each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.data.batches import epoch_generator, number_of_batches
from harness.data.prepared import SPLITS


@dataclass(frozen=True)
class TableTraining:
    """Batches of the training rows, shuffled anew in each epoch.

    Attributes:
        x: (rows, features) float32, standardised, or int64.
        targets: (rows, 1) float32, standardised, or (rows,) int64 class numbers.
        batch_size: Rows per batch.
        seed: Decides the order, together with the epoch.
        share: Which of how many parts of each batch is given out.
    """

    x: Tensor
    targets: Tensor
    batch_size: int
    seed: int
    share: tuple[int, int] = (0, 1)

    @property
    def num_examples(self) -> int:
        """Rows of the training set."""
        return len(self.x)

    def __len__(self) -> int:
        return number_of_batches(self.num_examples, self.batch_size)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `index` from batch `start` on: x (batch, features) and their targets."""
        order = torch.randperm(self.num_examples, generator=epoch_generator(self.seed, index)).to(self.x.device)
        part, parts = self.share
        for batch in order.split(self.batch_size)[start : len(self)]:
            rows = batch[part::parts]
            yield self.x[rows], self.targets[rows]


@dataclass(frozen=True)
class TableEvaluation:
    """Batches of rows that are measured, in their order.

    Attributes:
        x: (rows, features) float32 or int64.
        targets: As in training.
        batch_size: Rows per batch.
        share: Which of how many parts of the set is given out.
    """

    x: Tensor
    targets: Tensor
    batch_size: int
    share: tuple[int, int] = (0, 1)

    @property
    def num_examples(self) -> int:
        """Rows of the set."""
        return len(self.x)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        part, parts = self.share
        return zip(
            self.x[part::parts].split(self.batch_size), self.targets[part::parts].split(self.batch_size), strict=True
        )


def standardised(tensors: Mapping[str, Tensor], split: int) -> tuple[dict[str, tuple[Tensor, Tensor]], float]:
    """The rows of each part of one split, with statistics of its training rows alone.

    Args:
        tensors: `x` (rows, features) float64, or int64 for what names something, which stays as it is; `y` (rows, 1)
            float64 or (rows,) int64; and `parts` (splits, rows) int8: each row's place in SPLITS, -1 where a split
            leaves it out.
        split: Number of the split; those behind the last begin anew.

    Returns:
        (x, y) by name of the part, and the standard deviation that numbers were divided by (1 for classes). A feature
        that never changes is only shifted.
    """
    parts = tensors["parts"][split % len(tensors["parts"])]
    train = parts == SPLITS.index("train")
    x = _standard(tensors["x"], train)[0].float() if tensors["x"].is_floating_point() else tensors["x"]
    y, scale = tensors["y"], 1.0
    if y.is_floating_point():
        y, deviation = _standard(y, train)
        y, scale = y.float(), deviation.item()
    return {name: (x[parts == number], y[parts == number]) for number, name in enumerate(SPLITS)}, scale


def _standard(values: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    chosen = values[train]
    deviation = chosen.std(0, correction=0)
    deviation = torch.where(deviation > 1e-12 * chosen.abs().amax(0).clamp_min(1), deviation, 1.0)
    return (values - chosen.mean(0)) / deviation, deviation
