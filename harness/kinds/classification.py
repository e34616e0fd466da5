"""Classification: one class for each example, cross-entropy, top-k accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from harness.kinds import Kind, Metric

if TYPE_CHECKING:
    from torch import Tensor

TOP = (1, 3, 5)
BINS = 15
"""Of the confidence, from 0 to 1."""


class Classification(Kind):
    """Logits (batch, classes) against class numbers y (batch,) int64.

    An evaluation has `loss`, the mean cross-entropy over examples, and `top1`, `top3`, `top5`: fractions of examples
    whose class is among the k largest logits, k capped at the number of classes. Where calibration is measured it has
    also `brier`, the mean squared distance of the predicted probabilities from the answer, summed over classes; `ece`,
    the expected calibration error (Guo et al., ICML 2017, arXiv:1706.04599, with BINS bins of equal width); and, where
    the dataset names outliers, `auroc`: how often the prediction for one of them has more entropy than that for a test
    example.
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
    calibration = (
        Metric("brier", "Brier score", low=0, high=2),
        Metric("ece", "ECE", unit="%", digits=2, low=0, high=1),
        Metric("auroc", "AUROC of outliers", True, unit="%", digits=2, low=0, high=1),
    )
    details = ("samples",)
    sampled = True

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

    def pooled(self, outputs: Tensor) -> Tensor:
        """(batch, classes) logarithms of the mean probabilities."""
        return outputs.log_softmax(-1).logsumexp(0) - math.log(len(outputs))

    def predicted(
        self, pooled: Tensor, y: Tensor, val: Callable[[], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, float]:
        from torch.nn import functional

        distance = (pooled.exp() - functional.one_hot(y, pooled.shape[1])).square().sum(1).double().mean().item()
        gaps = [share * abs(confidence - right) for share, confidence, right in self.reliability(pooled, y)]
        means = {name: total / len(y) for name, total in self.sums(pooled, y).items()}
        return {**means, "brier": distance, "ece": sum(gaps)}

    def reliability(self, pooled: Tensor, y: Tensor) -> list[list[float]]:
        import torch

        confidence, answer = pooled.double().exp().max(1)
        right = (answer == y).double()
        place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # bins are closed above, as in the paper
        counts, sums, hits = (torch.bincount(place, of, BINS) for of in (torch.ones_like(right), confidence, right))
        return [
            [count / len(y), total / count, hit / count]
            for count, total, hit in zip(counts.tolist(), sums.tolist(), hits.tolist(), strict=True)
            if count
        ]

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
