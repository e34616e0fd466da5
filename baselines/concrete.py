"""Concrete dropout: drop rates are learned."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Concrete, penalty, plain, replace, switch_off
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    rate: Annotated[float, "(0, 1)"] = 0.1,
    length_scale: Annotated[float, "(0, inf)"] = 1e-4,
) -> nn.Module:
    """Train `model` with a learned drop rate for each linear layer (Gal, Hron & Kendall, arXiv:1705.07832).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        rate: Where the drop rates start.
        length_scale: Prior length scale of the weights.

    Returns:
        The trained network, of the plain architecture; the learned drop rates are logged.

    Raises:
        ValueError: a rate outside (0, 1), no linear layer.
    """
    model = replace(switch_off(model), lambda layer: Concrete(layer, rate=rate, length_scale=length_scale), nn.Linear)
    task.train(model, loss=lambda x, y: task.loss(model(x), y) + penalty(model) / task.examples)
    layers = [module for module in model.modules() if isinstance(module, Concrete)]
    task.log(**{f"drop_rate_{number}": layer.learned_rate.item() for number, layer in enumerate(layers, 1)})
    return plain(task.also_sampled(model))
