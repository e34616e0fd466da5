"""Advanced Dropout: logistic-normal masks whose parameters are read off the batch."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Advanced, penalty, plain, put_before, switch_off, units_of
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    reduction: Annotated[int, "[1, inf)"] = 16,
    prior: Annotated[float, "[0, inf)"] = 0.0,
) -> nn.Module:
    """Train `model` with Advanced Dropout on what its linear layers read (Xie et al., TPAMI 2022, arXiv:2010.05244).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        reduction: Units for each hidden value that the mask's parameters are read from.
        prior: Weight of the prior term; the authors' code has none.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: no layer to act before.
    """
    put_before(switch_off(model), lambda reader: Advanced(units_of(reader), reduction=reduction, prior=prior))
    return plain(task.train(model, loss=lambda x, y: task.loss(model(x), y) + penalty(model) / task.examples))
