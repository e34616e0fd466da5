"""Classification: one class for each example, cross-entropy, top-k accuracy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from harness.kinds import Kind, Metric

if TYPE_CHECKING:
    from torch import Tensor

TOP = (1, 3, 5)


class Classification(Kind):
    """Logits (batch, classes) against class numbers y (batch,) int64.

    An evaluation has `loss`, the mean cross-entropy over examples, and `top1`, `top3`, `top5`: fractions of examples
    whose class is among the k largest logits, k capped at the number of classes.
    """

    name = "classification"
    main = Metric("top1", "top-1", True, unit="%", digits=2, low=0, high=1, least_span=1.0)
    metrics = (
        Metric("loss", "loss", low=0),
        main,
        Metric("top3", "top-3", True, unit="%", digits=2, low=0, high=1, least_span=1.0),
        Metric("top5", "top-5", True, unit="%", digits=2, low=0, high=1, least_span=1.0),
    )
    noun = "images"

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs, y)

    def sums(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        from torch.nn import functional

        loss = functional.cross_entropy(outputs, y, reduction="sum").double().item()
        ranked = outputs.topk(min(max(TOP), outputs.shape[1]), dim=1).indices == y[:, None]
        return {"loss": loss, **{f"top{k}": int(ranked[:, :k].sum()) for k in TOP}}

    def summary(self, means: Mapping[str, float], val: Mapping[str, float] | None = None) -> dict[str, float]:
        return dict(means)

    def chance(self, train: Tensor, test: Tensor) -> float:
        """The share of the test set that has the commonest class of the training set."""
        return (test == train.mode().values).double().mean().item()

    def objections(self, evaluation: Mapping[str, float]) -> Iterator[str]:
        examples = evaluation["examples"]
        present = [f"top{k}" for k in TOP if f"top{k}" in evaluation]
        for key in present:
            right = evaluation[key] * examples
            if abs(right - round(right)) > 1e-6 * examples + 1e-6:
                yield f"{key} = {evaluation[key]} is not a number of right answers out of {examples} examples"
        for low, high in itertools.pairwise(present):
            if evaluation[low] > evaluation[high]:
                yield f"{low} = {evaluation[low]} is above {high} = {evaluation[high]}"


KIND = Classification()
