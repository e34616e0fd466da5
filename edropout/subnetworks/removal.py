"""Removes dropped units from a network: in place as zeros, or for good as a physically smaller module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks.evaluation import computed_attributes
from edropout.subnetworks.graph import Graph, tensors
from edropout.subnetworks.layout import Plan, Structure
from edropout.subnetworks.observe import close, first_samples, follow
from edropout.subnetworks.roles import call_counts, is_convolution, is_linear, norm_partners
from edropout.subnetworks.smaller import SmallerNetwork, cut_module, inflate_module, smaller_steps
from edropout.subnetworks.tracing import trace
from edropout.subnetworks.untouched import mode, no_random_numbers, unchanged


def mask_(model: nn.Module, kept: Mapping[str, Tensor], example: Tensor | None = None) -> None:
    """Zeroes in place what the dropped units own.

    A dropped filter loses its weight, its bias and the weight and bias of the batch norms that read it directly (a
    batch norm's bias would otherwise leak into the network); a dropped input of a linear layer loses its column.

    Args:
        model: The network; its running statistics are left alone.
        kept: layer -> bool over the filters of a convolution or the input features of a linear layer, True = kept.
        example: (batch, ...) one input, for a network that asks for sizes.

    Raises:
        ValueError: A layer is unknown or has another size; raised before anything changes.
    """
    graph, modules = trace(model, example)
    sizes = _sizes(graph, modules)
    _check(kept, sizes)
    with torch.no_grad():
        for _, parameter, axis, dropped in _owned(modules, norm_partners(graph, modules), kept):
            parameter.index_fill_(axis, dropped, 0)


def _owned(
    modules: Mapping[str, nn.Module], partners: Mapping[str, list[str]], kept: Mapping[str, Tensor]
) -> Iterator[tuple[str, nn.Parameter, int, Tensor]]:
    """Name, parameter, axis and numbers of all that the dropped units own."""
    for layer, mask in kept.items():
        dropped = (~mask).nonzero().squeeze(1).to(modules[layer].weight.device)
        if is_linear(modules[layer]):
            yield f"{layer}.weight", modules[layer].weight, 1, dropped
            continue
        for owner in (layer, *partners[layer]):
            for name, parameter in modules[owner].named_parameters(recurse=False):
                yield f"{owner}.{name}", parameter, 0, dropped


def check_exact(
    model: nn.Module,
    modules: Mapping[str, nn.Module],
    kept: Mapping[str, Tensor],
    example: Tensor,
    partners: Mapping[str, list[str]],
    compute: Callable[[Tensor], Any],
) -> None:
    """Raises ValueError unless `compute` does in eval mode what the network does with zeros in the dropped units."""
    with mode(model, training=False), no_random_numbers(example.device), unchanged(model), torch.no_grad():
        zeros = {n: p.detach().index_fill(axis, drop, 0) for n, p, axis, drop in _owned(modules, partners, kept)}
        found, own = (
            tensors(compute(first_samples(example))),
            tensors(torch.func.functional_call(model, zeros, first_samples(example))),
        )
    if len(found) != len(own) or not all(map(close, found, own)):
        raise ValueError(
            f"nothing in {type(model).__name__} can be pruned exactly: its sub-networks do not compute what it does"
            " with zeros. A usual cause is a hook, or a class of your own, that changes what a layer returns"
        )


def kept_units(model: nn.Module, example: Tensor | None = None) -> dict[str, Tensor]:
    """Reads from exact zeros which units of a masked network are kept.

    A filter is dropped if its weight, its bias and the weight and bias of its batch norms are all zero, an input of a
    linear layer if its column is zero.

    Args:
        model: The network.
        example: (batch, ...) one input, for a network that asks for sizes.

    Returns:
        layer -> bool, for every convolution and linear layer that can be cut; a pruned network answers with its own
        `kept`.
    """
    if isinstance(model, SmallerNetwork):
        return {layer: mask.clone() for layer, mask in model.kept.items()}
    graph, modules = trace(model, example)
    partners = norm_partners(graph, modules)
    kept = {}
    for layer in _sizes(graph, modules):
        module = modules[layer]
        if is_linear(module):
            kept[layer] = module.weight.detach().ne(0).any(0).cpu()
            continue
        alive = torch.zeros(module.out_channels, dtype=torch.bool)
        for owner in (module, *(modules[name] for name in partners[layer])):
            for parameter in owner._parameters.values():
                if parameter is not None:
                    alive |= (
                        parameter.detach()
                        .flatten(1 if parameter.ndim > 1 else 0)
                        .ne(0)
                        .reshape(len(alive), -1)
                        .any(1)
                        .cpu()
                    )
        kept[layer] = alive
    return kept


def prune(model: nn.Module, kept: Mapping[str, Tensor], example: Tensor, *, multiple_of: int = 1) -> SmallerNetwork:
    """Builds the physically smaller network that computes what the masked one computes, in train and in eval mode.

    Residual sums keep the union of the channels of their branches; where a layer cannot be cut exactly (group norm,
    layer norm, a batch norm after a concatenation, an unknown operation) the missing channels come back as zeros.

    Args:
        model: The full network, masked or not, or the result of an earlier `prune`; it is not changed.
        kept: layer -> bool over the units of the original architecture, or of what an earlier `prune` has left of it,
            True = kept; missing layers keep all.
        example: (batch, ...) one input, on the device of the model; only its first sample is run.
        multiple_of: Fill widths up to multiples of it with units that are zero, which hardware with matrix units may
            run faster than the odd widths (16 in float32 on AVX-512, 32 in bfloat16 on AMX); groups stay as they are.

    Returns:
        A trainable module with its own copies of the weights. `.kept` holds what is left of each layer, with what fills
        it up; `prune(build(), smaller.kept, example, multiple_of=...).load_state_dict(smaller.state_dict())`, with the
        same multiple, rebuilds it.

    Raises:
        ValueError: A layer is unknown, has another size, keeps no unit or cannot be cut exactly.
    """
    if isinstance(model, SmallerNetwork):
        return _prune_again(model, kept, multiple_of)
    graph, modules = follow(model, example)
    return cut_out(Structure(graph, modules), modules, model, kept, example, multiple_of=multiple_of)


def cut_out(
    structure: Structure,
    modules: Mapping[str, nn.Module],
    model: nn.Module,
    kept: Mapping[str, Tensor],
    example: Tensor,
    *,
    multiple_of: int = 1,
) -> SmallerNetwork:
    """What `prune` returns, of a network that was analysed before.

    Raises:
        ValueError: As `prune`, or the smaller network does not compute what the masked one does.
    """
    smaller = _build(structure, structure.plan(kept, multiple_of=multiple_of), modules, model)
    with mode(smaller, training=False):
        check_exact(model, modules, kept, example, structure.partners, smaller)
    return smaller


def _prune_again(smaller: SmallerNetwork, kept: Mapping[str, Tensor], multiple_of: int) -> SmallerNetwork:
    structure = smaller.structure
    kept = {layer: _of_original(mask, smaller.kept.get(layer)) for layer, mask in kept.items()}
    structure.check(kept)
    both = {layer: mask & kept.get(layer, mask) for layer, mask in smaller.kept.items()}
    modules = {}
    for step in structure.graph.steps:
        if step.kind == "module":
            modules[step.target] = smaller.get_submodule(step.target)
            cut = smaller.plan.cuts.get(step.target)
            if cut is not None:
                groups = structure.groups.get(step.target, 1)
                read = step.reads[0]
                columns = structure.graph.shapes[read][structure.axis(step.name, read)] // groups
                modules[step.target] = inflate_module(
                    modules[step.target], cut, structure.channels(step.name), columns, groups
                )
    return _build(structure, structure.plan(both, multiple_of=multiple_of), modules, smaller)


def _of_original(mask: Tensor, left: Tensor | None) -> Tensor:
    """Units of the original architecture from those of what is `left` of it, if `mask` speaks of these."""
    if left is None or mask.shape != (int(left.sum()),):
        return mask
    return torch.zeros_like(left).masked_scatter_(left, mask)


def _build(structure: Structure, plan: Plan, modules: Mapping[str, nn.Module], owner: nn.Module) -> SmallerNetwork:
    steps, reindexes = smaller_steps(structure, plan)
    smaller = SmallerNetwork(structure, plan, steps)
    copied = computed_attributes(owner)
    for name in call_counts(structure.graph):
        cut = plan.cuts.get(name)
        smaller.add(name, copy.deepcopy(modules[name], copied) if cut is None else cut_module(modules[name], cut))
    for name, reindex in reindexes.items():
        smaller.add(name, reindex)
    for step in steps:
        if step.kind == "attribute" and plan.cuts.get(step.target.rpartition(".")[0]) is None:
            smaller.copy_attribute(step.target, owner, copied)
    parameter = next(smaller.parameters(), None)
    if parameter is not None:
        for reindex in reindexes:
            smaller.get_submodule(reindex).to(parameter.device)
    before = dict(owner.named_modules())
    for name, module in smaller.named_modules():
        module.training = before[name].training if name in before else owner.training
    return smaller


def _sizes(graph: Graph, modules: Mapping[str, nn.Module]) -> dict[str, int]:
    """Number of units of each layer that can be switched: filters of convolutions, inputs of linear layers."""
    sizes = {}
    for layer, count in call_counts(graph).items():
        if count == 1 and is_convolution(modules[layer]):
            sizes[layer] = modules[layer].out_channels
        elif count == 1 and is_linear(modules[layer]):
            sizes[layer] = modules[layer].in_features
    return sizes


def _check(kept: Mapping[str, Tensor], sizes: Mapping[str, int]) -> None:
    for layer, mask in kept.items():
        if layer not in sizes:
            raise ValueError(f"layer '{layer}' cannot be cut exactly: it is no convolution or linear layer that "
                             "is called once with a weight of its own")  # fmt: skip
        if mask.dtype != torch.bool or mask.shape != (sizes[layer],):
            raise ValueError(f"kept['{layer}'] must be {sizes[layer]} booleans, not {tuple(mask.shape)} {mask.dtype}")
