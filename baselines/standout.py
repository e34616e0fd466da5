"""Standout: keep rates that grow with the pre-activation."""

from __future__ import annotations

from torch import nn

from dropouts import Standout, put_before, switch_off
from harness.training.task import Task


def fit(model: nn.Module, task: Task, *, alpha: float = 1.0, beta: float = 0.0) -> nn.Module:
    """Train `model` with standout on what its linear layers read (Ba & Frey, NeurIPS 2013).

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        alpha: Scale of the activation in the logit of the keep rate.
        beta: Offset of that logit.

    Returns:
        The trained network. Its activations are multiplied by their keep rates, so that it is not the plain one.

    Raises:
        ValueError: no layer to act before.
    """
    return task.train(change(switch_off(model), alpha=alpha, beta=beta))


def change(model: nn.Module, *, alpha: float, beta: float) -> nn.Module:
    """`model` with standout, which remembers its arguments so that harness.networks can store and rebuild it."""
    put_before(model, lambda reader: Standout(alpha, beta))
    model.changed_by = {"method": "standout", "arguments": {"alpha": alpha, "beta": beta}}
    return model
