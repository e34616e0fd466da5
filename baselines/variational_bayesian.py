"""Variational Bayesian dropout: units or weights that are noise only are pruned, under a proper prior."""

from __future__ import annotations

from torch import Tensor, nn

from dropouts import (
    VariationalBayesian,
    VariationalBayesianWeights,
    kept_share,
    penalty,
    plain,
    put_before,
    replace,
    switch_off,
    units_of,
)
from harness.training.position import Position
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    threshold: float = 0.0,
    on_units: bool = False,
    warm_up: tuple[float, float] = (0.025, 0.1),
) -> nn.Module:
    """Train `model` with learned noise under a hierarchical prior; what is noise only is pruned (arXiv:1811.07533).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        threshold: Weights or units of log alpha from here on are pruned; 0 in the first author's code.
        on_units: Noise on the units that linear layers and convolutions read, inputs of linear layers included, as in
            the first author's code; else on each weight, as in sparse variational dropout, with which the paper
            compares.
        warm_up: As for sparse variational dropout, whose scripts have one; nothing is known of it here.

    Returns:
        The trained network, of the plain architecture, with exact zeros.

    Raises:
        ValueError: no linear layer and no convolution.
    """
    kinds = (nn.Linear, nn.Conv2d)
    if on_units:
        put_before(
            switch_off(model),
            lambda reader: VariationalBayesian(units_of(reader), threshold=threshold),
            kinds,
            inputs=True,
        )
    else:
        model = replace(switch_off(model), lambda layer: VariationalBayesianWeights(layer, threshold=threshold), kinds)
    position, (start, end) = Position(task), warm_up

    def loss(x: Tensor, y: Tensor) -> Tensor:
        weight = min(1.0, max(0.0, (float(position) - start) / (end - start)))
        return task.loss(model(x), y) + weight * penalty(model) / task.examples

    options = {"step": position.step, "state": {"position": position}}
    return plain(
        task.also_sampled(task.train(model, loss=loss, columns=lambda: {"kept_share": kept_share(model)}, **options))
    )
