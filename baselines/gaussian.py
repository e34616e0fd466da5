"""Gaussian dropout: multiplicative noise on hidden units with the variance of Bernoulli dropout."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Gaussian, plain, put_before, switch_off
from harness.training.task import Task


def fit(model: nn.Module, task: Task, *, rate: Annotated[float, "[0, 1)"] = 0.5) -> nn.Module:
    """Train `model` with Gaussian noise on what its linear layers read (Srivastava et al., JMLR 15, 2014, section 10).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        rate: Drop rate of the Bernoulli dropout of equal variance.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: a rate outside [0, 1), no layer to act before.
    """
    put_before(switch_off(model), lambda reader: Gaussian(rate))
    return plain(task.also_sampled(task.train(model)))
