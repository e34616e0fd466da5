"""Refuses bad input with a sentence, before anything has changed."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.parameter import UninitializedParameter
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from edropout.subnetworks.graph import Graph
from edropout.subnetworks.smaller import SmallerNetwork
from edropout.subnetworks.units import Units
from edropout.target import Target


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside what makes it faster or distributes it; the search runs it in its own way."""
    while isinstance(model, DistributedDataParallel | nn.DataParallel) or hasattr(model, "_orig_mod"):
        model = model._orig_mod if hasattr(model, "_orig_mod") else model.module  # of torch.compile
    return model


def check_network(model: nn.Module) -> None:
    """Raises ValueError if this is no network that can be searched."""
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise ValueError(f"the network must be an ordinary nn.Module, not {type(model).__name__}")
    if isinstance(model, AveragedModel):
        raise ValueError("an AveragedModel is not trained: search the network itself, and average it after each step")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("the network is on the meta device, without weights: load them before the search")
    cuts = model.plan.cuts.values() if isinstance(model, SmallerNetwork) else ()
    if any(cut.padding is not None and cut.columns is not None and cut.columns.ndim > 1 for cut in cuts):
        raise ValueError("this pruned network has a convolution with groups of uneven size, filled up with zeros, "
                         "which cannot be searched again: search the network that it was pruned from")  # fmt: skip
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        raise ValueError("the network has lazy layers: run it once, so that they know their sizes")
    if any(isinstance(module, nn.SyncBatchNorm) for module in model.modules()):
        raise ValueError("SyncBatchNorm is not supported: its statistics would differ from the candidates'")


def check_probabilities(**values: float) -> None:
    """Raises ValueError, naming the argument, if one is not in [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], not {value}")


def check_counts(**values: tuple[int | None, int]) -> None:
    """Raises ValueError, naming the argument, if a value is neither None nor a whole number that is large enough.

    Args:
        values: name -> (value, smallest value).
    """
    for name, (value, least) in values.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_owner(optimizer: Optimizer, cut: Container[nn.Parameter], model: nn.Module) -> None:
    """Raises ValueError if the optimiser has no parameter of the network, `cut` ones among them."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(parameter in cut for parameter in parameters) and set(parameters).isdisjoint(model.parameters()):
        raise ValueError(f"this {type(optimizer).__name__} has no parameter of the network that is searched: make it "
                         "from the parameters of the model that EDropout was given, after its last change")  # fmt: skip


def check_state(state: Any, own: Mapping[str, Any], units: Units) -> None:
    """Raises ValueError if `state` is not what `state_dict` of a search with the state `own` could have returned."""
    if not isinstance(state, Mapping) or (missing := own.keys() - state.keys()):
        what = "is no dictionary" if not isinstance(state, Mapping) else f"lacks {', '.join(sorted(missing))}"
        raise ValueError(f"the saved state {what}")
    for name in ("population", "energies", "scores", "generator"):
        value = state[name]
        if not isinstance(value, Tensor) or value.shape != own[name].shape or not _alike(value, own[name]):
            found = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"the saved {name} is {found}, this search has {tuple(own[name].shape)} {own[name].dtype}")
    if (own["moments"] is None) != (state["moments"] is None):
        raise ValueError("the saved state and this search differ in whether they go by energies with curvature")
    for value, expected in zip(state["moments"] or (), own["moments"] or (), strict=True):
        if not isinstance(value, Tensor) or value.shape != expected.shape:
            raise ValueError(f"the saved moments are not those of {units.num_units} units")
    states = [*state["population"].cpu(), *([] if state["frozen_state"] is None else [state["frozen_state"]])]
    for entry in states:
        if not isinstance(entry, Tensor) or entry.shape != (units.num_units,) or entry.dtype != torch.bool:
            raise ValueError(f"each saved state must have {units.num_units} units")
        if not torch.equal(units.repair_(entry.clone()), entry):
            raise ValueError("a saved state drops all units of a layer")


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype or (one.is_floating_point() and other.is_floating_point())


def check_labels(graph: Graph, x: Tensor, y: Any) -> None:
    """Raises ValueError if labels and logits do not fit the margin of class numbers."""
    shape = graph.shapes.get(graph.steps[-1].name)
    if shape is None or len(shape) != 2 or shape[1] < 2:
        raise ValueError("the network must return one tensor of logits, (batch, classes), of at least two classes: for "
                         "other outputs give EDropout an energy, as energy=edropout.energy.dense_margin")  # fmt: skip
    if not isinstance(y, Tensor) or y.shape != x.shape[:1] or y.dtype != torch.int64:
        raise ValueError(f"labels must be {len(x)} int64 class numbers, not "
                         f"{f'{tuple(y.shape)} {y.dtype}' if isinstance(y, Tensor) else type(y).__name__}: for other "
                         "targets give EDropout an energy, as energy=edropout.energy.soft_margin")  # fmt: skip
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= shape[1]:
        raise ValueError(f"labels must be in 0..{shape[1] - 1}, but the batch has {low}..{high}")


def check_reduction(criterion: Any, target: Target) -> None:
    """Raises ValueError if a training loss says that it adds its examples up otherwise than the target does."""
    reduction = getattr(criterion, "reduction", None)
    if target.by == "curvature" and reduction in ("mean", "sum") and target.summed != (reduction == "sum"):
        raise ValueError(f"the training loss is the {reduction} over its examples, on which energies with curvature "
                         f"depend: say so, Target(..., summed={reduction == 'sum'})")  # fmt: skip


def check_batch(graph: Graph, modules: Mapping[str, nn.Module], x: Tensor) -> None:
    """Raises ValueError if there is nothing in the batch or a batch norm would see one value for each channel."""
    if len(x) == 0:
        raise ValueError("the batch is empty")
    if len(x) > 1:
        return
    for step in graph.steps:
        if step.kind == "module" and isinstance(modules[step.target], _BatchNorm):
            module = modules[step.target]
            if module.training and graph.shapes[step.name][2:].numel() == 1:
                raise ValueError(f"batch norm '{step.target}' needs more than one value per channel")
