"""Independent copies of a network for evaluation, with batch-norm statistics measured under the state in force."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.subnetworks.graph import Graph
from edropout.subnetworks.layout import Plan


@torch.no_grad()
def recalibrate_(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]]) -> nn.Module:
    """Replaces the running statistics of every batch norm by their averages over `batches` of inputs, in place.

    The statistics that training leaves behind belong to many states; eval mode needs those of one. Everything but
    batch norm runs in eval mode; `model` is in eval mode afterwards.

    Args:
        model: The network.
        batches: Inputs, or (inputs, ...) as a DataLoader gives them; run through once.

    Raises:
        ValueError: `batches` is empty or holds something else.
    """
    if isinstance(batches, Tensor):
        raise ValueError("the batches must be several inputs, as [x] or a DataLoader, not one tensor")
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("recalibrating batch norm needs at least one batch")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in itertools.chain([first], batches):
        x = batch[0] if isinstance(batch, tuple | list) and batch else batch
        if not isinstance(x, Tensor):
            raise ValueError(f"each batch must be an input or (input, ...), not {type(x).__name__}: hand in the inputs "
                             "alone, as (batch['image'] for batch in loader)")  # fmt: skip
        model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def computed_attributes(model: nn.Module) -> dict[int, Any]:
    """A memo for copy.deepcopy of what hooks have computed from parameters, as weight_norm does, and it refuses."""
    attributes = (value for part in model.modules() for value in vars(part).values() if isinstance(value, Tensor))
    return {id(value): value.detach().clone() for value in attributes if not value.is_leaf}


def full_copy(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]] | None) -> nn.Module:
    """A copy of the full network in eval mode, recalibrated on `batches` if they are given."""
    result = copy.deepcopy(model, computed_attributes(model)).eval()
    return result if batches is None else recalibrate_(result, batches)


def parameter_counts(graph: Graph, modules: Mapping[str, nn.Module], plan: Plan) -> dict[str, tuple[int, int]]:
    """Physical parameters of each layer as (left under the plan, in the full network)."""
    counts = {}
    for layer in dict.fromkeys(step.target for step in graph.steps if step.kind == "module"):
        left = full = 0
        cut = plan.cuts.get(layer)
        for parameter in modules[layer].parameters():
            full += parameter.numel()
            shape = list(parameter.shape)
            if cut is not None and cut.rows is not None:
                shape[0] = len(cut.rows)
            if cut is not None and cut.columns is not None and parameter.ndim > 1:
                shape[1] = cut.columns.shape[-1]
            left += torch.Size(shape).numel()
        if full:
            counts[layer] = (left, full)
    return counts


def authors_counts(modules: Mapping[str, nn.Module], kept: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """Parameters of each switched layer as (kept, all) in the authors' way.

    A kept filter counts with all its input channels and its bias, a kept input of a linear layer with its column;
    batch norms, biases of linear layers and the input channels that a smaller layer no longer needs do not count.
    """
    counts = {}
    for layer, mask in kept.items():
        module = modules[layer]
        axis = 1 if isinstance(module, nn.Linear) else 0
        each = module.weight.numel() // module.weight.shape[axis]
        each += int(axis == 0 and module.bias is not None)
        counts[layer] = (int(mask.sum()) * each, len(mask) * each)
    return counts
