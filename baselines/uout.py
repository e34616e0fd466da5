"""Uout: uniform multiplicative noise on hidden units."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Uout, plain, put_before, switch_off
from harness.training.task import Task


def fit(model: nn.Module, task: Task, *, width: Annotated[float, "[0, 1]"] = 0.1) -> nn.Module:
    """Train `model` with uniform noise on what its linear layers read (Li et al., CVPR 2019, arXiv:1801.05134).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        width: Half width of the noise; the paper's, from memory.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: a width outside [0, 1], no layer to act before.
    """
    put_before(switch_off(model), lambda reader: Uout(width))
    return plain(task.train(model))
