"""Information dropout: log-normal noise, and a price on the information that passes it."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import Information, penalty, plain, put_before, switch_off, units_of
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    beta: Annotated[float, "[0, inf)"] = 3.0,
    max_alpha: Annotated[float, "(0, inf)"] = 0.7,
) -> nn.Module:
    """Train `model` with information dropout on what its linear layers read (Achille & Soatto, arXiv:1611.01353).

    A unit's noise level is a learned linear function of the units beside it; in the paper, of those of the layer
    before, which a network of any shape does not tell.

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        beta: Price of information.
        max_alpha: Largest deviation of the log noise.

    Returns:
        The trained network, of the plain architecture.

    Raises:
        ValueError: no layer to act before.
    """

    def make(reader: nn.Linear) -> nn.Module:
        level = nn.Linear(units_of(reader), units_of(reader))
        return Information(nn.Identity(), level, beta=beta, max_alpha=max_alpha)

    put_before(switch_off(model), make)
    return plain(task.train(model, loss=lambda x, y: task.loss(model(x), y) + penalty(model) / task.examples))
