"""What is asked of Torch-Pruning: the order in which units go, how many, and the penalties that prepare for it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch_pruning import importance, pruner

from baselines.depgraph.widths import History

IMPORTANCES: dict[str, Callable[[], Any]] = {
    "group_norm": lambda: importance.GroupMagnitudeImportance(p=2),  # Fang et al., CVPR 2023 (arXiv:2301.12900)
    "l1": lambda: importance.GroupMagnitudeImportance(p=1, normalizer=None, group_reduction="first"),
    "norm_scale": importance.BNScaleImportance,  # Liu et al., ICCV 2017 (arXiv:1708.06519)
    "taylor": importance.GroupTaylorImportance,  # Molchanov et al., CVPR 2019 (arXiv:1906.10771)
    "fpgm": importance.FPGMImportance,  # He et al., CVPR 2019 (arXiv:1811.00250)
    "lamp": importance.LAMPImportance,  # Lee et al., ICLR 2021 (arXiv:2010.07611)
    "obd": importance.GroupHessianImportance,  # LeCun et al., 1989, by the empirical Fisher
    "random": importance.RandomImportance,
}
PENALTIES = {
    "none": pruner.MetaPruner,
    "group": pruner.GroupNormPruner,
    "norm_scale": pruner.BNScalePruner,
    "growing": pruner.GrowingRegPruner,  # Wang et al., ICLR 2021 (arXiv:2012.09243)
}
SEARCH_STEPS = 12
"""Halvings of the interval in which the library's channel ratio is sought."""


def make(network: nn.Module, example: Tensor, *, order: str, penalty: str = "none", **options: Any) -> Any:
    """A pruner of the library for the network as it is now; the output layer keeps its width.

    Raises:
        ValueError: the library cannot follow the network.
    """
    try:
        with _evaluating(network), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ignored = [output_layer(network, example)]
            made = PENALTIES[penalty](network, example, IMPORTANCES[order](), ignored_layers=ignored, **options)
    except Exception as error:  # Whatever the library meets on its way through a foreign network.
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"Torch-Pruning cannot follow {type(network).__name__}: {reason}") from error
    if hasattr(made, "_groups"):
        # The penalty of a group of one channel is 0 / 0 in the library.
        made._groups = [group for group in made._groups if len(group[0].idxs) > 1]
    return made


def history_at(
    network: nn.Module,
    example: Tensor,
    goal: float,
    size: Callable[[nn.Module], float],
    *,
    order: str,
    global_pruning: bool,
) -> History:
    """What to remove so that the network's size comes as near to the goal as whole channels allow.

    The library takes a share of the channels; it is found by bisection on copies.

    Args:
        network: Its gradients count where the order is by gradients; it is not changed.
        example: One input.
        goal: The size to reach.
        size: Of a network, in the unit of the goal.
        order: One of IMPORTANCES.
        global_pruning: Rank the units of all layers together instead of layer by layer.
    """
    low, high = 0.0, 1.0
    best: tuple[float, History] = (abs(size(network) - goal), [])
    state = torch.get_rng_state()
    for _ in range(SEARCH_STEPS):
        ratio = (low + high) / 2
        probe = _with_gradients(network)
        torch.set_rng_state(state)  # A random order must be the same one at every ratio.
        chosen = make(probe, example, order=order, pruning_ratio=ratio, global_pruning=global_pruning)
        _prune(chosen, probe)
        reached = size(probe)
        distance = abs(reached - goal)
        if distance < best[0]:
            best = distance, chosen.pruning_history()
        low, high = (low, ratio) if reached < goal else (ratio, high)
    return best[1]


def _prune(chosen: Any, probe: nn.Module) -> None:
    try:
        chosen.step()
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ValueError(f"Torch-Pruning cannot prune {type(probe).__name__}: {reason}") from error


def output_layer(network: nn.Module, example: Tensor) -> nn.Module:
    """The layer with weights that is called last."""
    called: list[nn.Module] = []
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    handles = [
        module.register_forward_hook(lambda module, *_: called.append(module))
        for module in network.modules()
        if isinstance(module, kinds)
    ]
    with _evaluating(network), torch.no_grad():
        network(example)
    for handle in handles:
        handle.remove()
    if not called:
        raise ValueError(f"nothing can be pruned in {type(network).__name__}: it has no convolution or linear layer")
    return called[-1]


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """The library runs the network to follow it: no running statistics may move by that."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def squared_gradients_(network: nn.Module, x: Tensor, y: Tensor, mean_loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put the mean over examples of the squared gradient into `grad`: the diagonal that `obd` ranks by.

    The library's own accumulation keeps the last example only.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    sums = [torch.zeros_like(parameter) for parameter in parameters]
    outputs = network(x)
    for number in range(len(y)):
        loss = mean_loss(outputs[number : number + 1], y[number : number + 1])
        for total, gradient in zip(sums, torch.autograd.grad(loss, parameters, retain_graph=True), strict=True):
            total.addcmul_(gradient, gradient)
    for parameter, total in zip(parameters, sums, strict=True):
        parameter.grad = total / len(y)


def _with_gradients(network: nn.Module) -> nn.Module:
    """A copy with the gradients, which `copy.deepcopy` leaves out."""
    probe = copy.deepcopy(network)
    for own, other in zip(probe.parameters(), network.parameters(), strict=True):
        own.grad = None if other.grad is None else other.grad.detach().clone()
    return probe
