"""Random pruning: units or weights drawn by lot and fixed from the start, the control of any informed choice."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated

import torch
from torch import Tensor, nn

from harness.measure import metrics
from harness.pruning.inherited import kept_ratio_of, kept_units_of
from harness.pruning.layers import NothingToPrune, convolutions
from harness.pruning.structured import check_ratio, example_of, kept_count, nearest_ratio, prune_units, random_kept
from harness.pruning.unstructured import number_to_keep, prunable_weights, train_masked
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    prune_ratio: Annotated[float, "[0, 1)"] | None = None,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    weights: bool = False,
) -> nn.Module:
    """Draw what to keep, uniformly without replacement in each layer, and train that on what is left of the budget.

    Args:
        model: A freshly initialised network, or the trained dense one if the rule lists `init=DENSE`.
        task: Data, recipe and loop; `task.inputs["edropout"]` unless a ratio is given.
        prune_ratio: Fraction of units (or weights) to remove from each layer. None draws from each layer as many
            units as the EDropout cell of the same dataset, model and seed keeps there, so that only the choice of
            the units differs; of weights, until as many of all parameters are left as there.
        target_kept: Share of all parameters to keep, in (0, 1], instead of a fraction of units: the ratio, equal in
            all layers, whose network comes nearest to it.
        weights: Prune single weights of convolutions and linear layers; units are filters of all convolutions but
            the stem.

    Returns:
        The physically smaller network; with `weights`, the network with exact zeros.

    Raises:
        ValueError: a ratio outside [0, 1), no ratio or two, a layer without units, nothing to prune.
    """
    if prune_ratio is not None:
        check_ratio(prune_ratio)
    if target_kept is not None:
        if prune_ratio is not None or weights:
            raise ValueError("target_kept counts units of all layers: give it without prune_ratio and weights")
        return task.train(_of_share(model, task, target_kept))
    if prune_ratio is None and "edropout" not in task.inputs:
        raise ValueError("random pruning needs a prune_ratio, or edropout=EDROPOUT among the inputs of its rule")
    generator = task.generator("random pruning")
    if weights:
        prunable = prunable_weights(model)
        total = sum(weight.numel() for weight in prunable.values())
        if prune_ratio is None:
            prune_ratio = 1 - number_to_keep(model, prunable, kept_ratio_of(task.inputs["edropout"])) / total
        masks = {name: _drawn(weight, prune_ratio, generator) for name, weight in prunable.items()}
        return train_masked(model, task, masks)
    if prune_ratio is None:
        like = kept_units_of(task.inputs["edropout"], model)
        counts = {name: (len(units), int(units.sum())) for name, units in like.items()}
    else:
        counts = filter_counts(model, task, prune_ratio)
    return task.train(prune_units(model, draw(model, counts, example_of(task), generator), example_of(task)))


def draw(
    model: nn.Module, counts: Mapping[str, tuple[int, int]], example: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw the kept units; the inputs of a linear layer among those that the drawn filters still provide.

    Drawn on their own they would meet the filters by chance only, and half of a half would be left.

    Args:
        model: The network.
        counts: layer -> (units, units to keep).
        example: One input.
        generator: Source of all draws.

    Returns:
        layer -> bool over its units, True = kept.
    """
    linear = [name for name in counts if isinstance(model.get_submodule(name), nn.Linear)]
    kept = {name: random_kept(*counts[name], generator) for name in counts if name not in linear}
    provided = prune_units(model, kept, example).kept
    for name in linear:
        places = provided[name].nonzero().squeeze(1)
        chosen = random_kept(len(places), min(counts[name][1], len(places)), generator)
        kept[name] = torch.zeros(counts[name][0], dtype=torch.bool).index_fill_(0, places[chosen], True)
    return kept


def filter_counts(model: nn.Module, task: Task, prune_ratio: float) -> dict[str, tuple[int, int]]:
    """Filters, and filters to keep, of every convolution but the stem and the output layer.

    Raises:
        NothingToPrune: there is no such convolution.
        ValueError: a layer would lose all its filters.
    """
    layers = [layer for layer in convolutions(model, example_of(task)) if not (layer.stem or layer.output)]
    if not layers:
        raise NothingToPrune(f"nothing can be pruned in {type(model).__name__}: it has no convolution behind its stem")
    counts = {layer.name: (layer.width, kept_count(layer.width, prune_ratio)) for layer in layers}
    for name, (_, count) in counts.items():
        if count == 0:
            raise ValueError(f"layer '{name}' would lose all its filters: choose a smaller prune_ratio")
    return counts


def _of_share(model: nn.Module, task: Task, target_kept: float) -> nn.Module:
    """The network of randomly drawn units whose share of the parameters is nearest to `target_kept`."""
    check_ratio(1 - target_kept, "1 - target_kept")
    example, total = example_of(task), metrics.parameters(model)

    @cache
    def pruned(prune_ratio: float) -> nn.Module:
        counts = filter_counts(model, task, prune_ratio)
        return prune_units(model, draw(model, counts, example, task.generator("random pruning")), example)

    def share(prune_ratio: float) -> float:
        return metrics.parameters(pruned(prune_ratio)) / total

    return pruned(nearest_ratio(share, target_kept))


def _drawn(weight: Tensor, prune_ratio: float, generator: torch.Generator) -> Tensor:
    """A random mask over one weight with the layer's share of kept entries."""
    size = weight.numel()
    return random_kept(size, kept_count(size, prune_ratio), generator).reshape(weight.shape).to(weight.device)
