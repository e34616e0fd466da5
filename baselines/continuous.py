"""Continuous dropout: masks from an interval on hidden units."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Continuous, plain, put_before, switch_off
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    sigma: Annotated[float, "(0, inf)"] | None = None,
    clipped: bool = True,
) -> nn.Module:
    """Train `model` with uniform or Gaussian masks on what its linear layers read (Shen et al., arXiv:1911.12675).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        sigma: Deviation of a Gaussian mask with mean 0.5; uniform masks on [0, 1] if None.
        clipped: Clip the Gaussian mask to [0, 1].

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: sigma that is not positive, no layer to act before.
    """
    put_before(switch_off(model), lambda reader: Continuous(sigma=sigma, clipped=clipped))
    return plain(task.train(model))
