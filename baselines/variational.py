"""Variational dropout: Gaussian noise whose variance is learned."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Variational, VariationalWeights, penalty, plain, put_before, replace, switch_off, units_of
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    alpha: Annotated[float, "(0, 1)"] = 0.5,
    per_unit: bool = False,
    on_weights: bool = False,
) -> nn.Module:
    """Train `model` with learned Gaussian noise (Kingma, Salimans & Welling, NeurIPS 2015, arXiv:1506.02557).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        alpha: Where the noise variance starts.
        per_unit: One variance for each unit instead of one for each layer.
        on_weights: Type B, noise on each weight of every linear layer; else type A, noise on the hidden units that
            the linear layers read.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: alpha outside (0, 1), no layer to act on.
    """
    switch_off(model)
    if on_weights:
        model = replace(model, lambda layer: VariationalWeights(layer, alpha=alpha, per_unit=per_unit), nn.Linear)
    else:
        put_before(model, lambda reader: Variational(units_of(reader), alpha=alpha, per_unit=per_unit))
    return plain(
        task.also_sampled(task.train(model, loss=lambda x, y: task.loss(model(x), y) + penalty(model) / task.examples))
    )
