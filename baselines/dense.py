"""The unpruned network, trained with the recipe and nothing else: the reference of every table."""

from __future__ import annotations

from torch import nn

from harness.training.task import Task


def fit(model: nn.Module, task: Task) -> nn.Module:
    """Train `model` on the whole budget.

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop.

    Returns:
        The trained network.
    """
    return task.train(model)
