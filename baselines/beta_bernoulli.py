"""Beta-Bernoulli dropout: units that are hardly ever kept are pruned."""

from __future__ import annotations

from torch import nn

from dropouts import BetaBernoulli, penalty, plain, put_before, switch_off, units_of
from harness.training.task import Task


def fit(model: nn.Module, task: Task, *, alpha: float = 1e-4, speed: float = 10.0) -> nn.Module:
    """Train `model` further with a keep rate for each hidden unit, and prune what is hardly ever kept.

    Args:
        model: The trained dense network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        alpha: First parameter of the beta prior.
        speed: How many times as fast as the weights the keep rates are learned, by Adam.

    Returns:
        The trained network, of the plain architecture, with exact zeros in what reads a pruned unit.

    Raises:
        ValueError: no layer to act before.
    """
    put_before(
        switch_off(model),
        lambda reader: BetaBernoulli(units_of(reader), alpha=alpha, speed=speed),
        (nn.Linear, nn.Conv2d),
    )
    return plain(task.train(model, loss=lambda x, y: task.loss(model(x), y) + penalty(model) / task.examples))
