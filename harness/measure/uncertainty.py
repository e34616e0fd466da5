"""How sure predictions are: by sampling, calibrated or not, and for inputs of another kind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from dropouts.sampling import sampling
from harness.kinds import Kind
from harness.measure.metrics import laid_out

Batches = Iterable[tuple[Tensor, Tensor]]


class Measured(Protocol):
    """The data that is looked at, as `harness.data.dataset.Data` has it."""

    val: Batches
    test: Batches
    outliers: Batches | None
    kind: Kind


def measure(network: nn.Module, data: Measured, *, samples: int | None = None) -> dict[str, Any]:
    """An evaluation of the test set with its calibration, and the bins of the reliability diagram.

    Args:
        network: From inputs to what the kind's loss takes.
        data: What is chosen on `val` is measured on `test`.
        samples: Passes that draw, whose predictions are averaged; None for one pass in evaluation mode.

    Returns:
        `evaluation`, and `reliability`: the kind's bins, if it has any.
    """
    kind = data.kind
    pooled, y = predictions(network, data.test, kind, samples)
    evaluation = kind.predicted(pooled, y, lambda: predictions(network, data.val, kind, samples))
    evaluation |= {"examples": len(y), **({"samples": samples} if samples else {})}
    if data.outliers is not None:
        outside, _ = predictions(network, data.outliers, kind, samples)
        evaluation["auroc"] = auroc(entropy(outside), entropy(pooled))
    return {"evaluation": evaluation, "reliability": kind.reliability(pooled, y)}


@torch.no_grad()
def predictions(network: nn.Module, batches: Batches, kind: Kind, samples: int | None) -> tuple[Tensor, Tensor]:
    """What the kind keeps of the passes over all examples, and their targets, in their order."""
    pooled, targets = [], []
    with sampling(network) if samples else _evaluated(network):
        for x, y in batches:
            x = laid_out(x)
            pooled.append(kind.pooled(torch.stack([network(x).float() for _ in range(samples or 1)])))
            targets.append(y)
    return torch.cat(pooled), torch.cat(targets)


def entropy(log_probabilities: Tensor) -> Tensor:
    """(examples,) in nats, of (examples, classes)."""
    return -(log_probabilities.double().exp() * log_probabilities.double()).nan_to_num(0.0).sum(1)


def auroc(higher: Tensor, lower: Tensor) -> float:
    """How often a score of `higher` is above one of `lower`, ties counted half: the area under the ROC curve."""
    from scipy.stats import rankdata

    count = len(higher)
    ranks = rankdata(torch.cat([higher, lower]).cpu().numpy())
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(lower)))


@contextmanager
def _evaluated(network: nn.Module) -> Iterator[None]:
    was_training = network.training
    network.eval()
    yield
    network.train(was_training)
