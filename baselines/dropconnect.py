"""DropConnect: single weights are dropped."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from dropouts import DropConnect, mean_weights, plain, rectified_mean, replace, switch_off
from harness.training.task import Task


def fit(model: nn.Module, task: Task, *, rate: Annotated[float, "[0, 1)"] = 0.5, moments: bool = True) -> nn.Module:
    """Train `model` with DropConnect in its hidden linear layers (Wan et al., ICML 2013), one mask for each batch.

    The last layer, the paper's softmax classifier, is left alone, unless there is no other.

    Args:
        model: A freshly initialised network. Its own dropout modules are switched off.
        task: Data, recipe and loop.
        rate: Probability to drop a weight.
        moments: Predict with the mean of ReLU over Gaussian pre-activations of matching moments, as the paper does;
            else with mean weights, as a last layer in any case.

    Returns:
        The trained network, of the plain architecture without `moments`.

    Raises:
        ValueError: a rate outside [0, 1), no linear layer.
    """
    task.also_sampled(task.train(change(switch_off(model), rate=rate, moments=moments)))
    if not moments:
        del model.changed_by
        plain(model)
    return model


def change(model: nn.Module, *, rate: float, moments: bool) -> nn.Module:
    """`model` with DropConnect, which remembers its arguments so that harness.networks can store and rebuild it."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    last, alone = linear[-1:], len(linear) == 1

    def make(layer: nn.Linear) -> nn.Module:
        if layer in last and not alone:
            return layer
        return DropConnect(layer, rate=rate, inference=rectified_mean if moments and not alone else mean_weights)

    replace(model, make, nn.Linear)
    model.changed_by = {"method": "dropconnect", "arguments": {"rate": rate, "moments": moments}}
    return model
