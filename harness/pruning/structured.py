"""What structured methods share: how many units of each layer to keep, and the removal of the others."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby

import torch
from torch import Tensor, nn

from edropout.subnetworks import removal
from harness.measure.metrics import parameters
from harness.pruning.inherited import kept_ratio_of
from harness.pruning.layers import Layer
from harness.training.task import Task

ROUNDING = 1e-9
"""Slack against 10 * (1 - 0.9) < 1 in binary arithmetic."""
RATIO_STEPS = 256
"""Fineness of the ratios that are tried to reach a share of the parameters."""


def check_ratio(prune_ratio: float, name: str = "prune_ratio") -> None:
    """Raise ValueError unless the ratio lies in [0, 1)."""
    if isinstance(prune_ratio, bool) or not isinstance(prune_ratio, int | float) or not 0 <= prune_ratio < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, not {prune_ratio!r}")


def example_of(task: Task) -> Tensor:
    """One blank input of the task's shape, to trace networks with: (1, *input_shape)."""
    return task.example()


def kept_count(width: int, prune_ratio: float) -> int:
    """int(width * (1 - prune_ratio)): how many of a layer's units stay."""
    return int(width * (1 - prune_ratio) + ROUNDING)


def kept_counts(
    layers: Sequence[Layer], prune_ratio: float | Sequence[float], skip: Sequence[int] = ()
) -> dict[str, int]:
    """How many filters each layer keeps.

    Args:
        layers: Candidates in execution order.
        prune_ratio: One for all, or one for each stage; a stage is a run of candidates of equal width.
        skip: Numbers of the layers that keep all their filters (`Layer.number`).

    Returns:
        layer name -> count, without the skipped layers and those with prune ratio 0.

    Raises:
        ValueError: a ratio outside [0, 1), a wrong number of ratios, an unknown layer, or a layer without filters.
    """
    stages = [list(group) for _, group in groupby(layers, key=lambda layer: layer.width)]
    ratios = list(prune_ratio) if isinstance(prune_ratio, Sequence) else [prune_ratio] * len(stages)
    for ratio in ratios:
        check_ratio(ratio)
    if len(ratios) != len(stages):
        widths = ", ".join(str(stage[0].width) for stage in stages)
        raise ValueError(
            f"prune_ratio has {len(ratios)} entries and the network has {len(stages)} stages (of widths {widths}): "
            "give one ratio for all, or one for each stage"
        )
    unknown = set(skip) - {layer.number for layer in layers}
    if unknown:
        raise ValueError(
            f"skip names convolution {min(unknown)}, which cannot be pruned anyway: "
            f"the candidates are {', '.join(str(layer.number) for layer in layers)}"
        )
    counts = {
        layer.name: kept_count(layer.width, ratio)
        for stage, ratio in zip(stages, ratios, strict=True)
        for layer in stage
        if layer.number not in skip and ratio > 0
    }
    for name, count in counts.items():
        if count == 0:
            raise ValueError(
                f"layer '{name}' would lose all its filters: choose a smaller prune_ratio or skip the layer"
            )
    return counts


def counts_of(
    model: nn.Module,
    task: Task,
    layers: Sequence[Layer],
    *,
    prune_ratio: float | Sequence[float] | None,
    target_kept: float | None,
    skip: Sequence[int] = (),
) -> dict[str, int]:
    """How many filters each layer keeps: by ratio, or by the share of all parameters that is to be left.

    Args:
        model: The dense network.
        task: `task.inputs["edropout"]` says the share if neither a ratio nor a share is given.
        layers: As for `kept_counts`.
        prune_ratio: As for `kept_counts`.
        target_kept: Share of all parameters to keep, in (0, 1]: the ratio, equal in all layers, that comes nearest.
        skip: As for `kept_counts`.

    Raises:
        ValueError: both are given, or neither and no EDropout cell to compare with; what `kept_counts` raises.
    """
    if prune_ratio is not None:
        if target_kept is not None:
            raise ValueError("prune_ratio and target_kept both say how much is pruned: give one of them")
        return kept_counts(layers, prune_ratio, skip)
    if target_kept is None:
        if "edropout" not in task.inputs:
            raise ValueError("give a prune_ratio or target_kept, or list edropout=EDROPOUT in the method's rule")
        target_kept = kept_ratio_of(task.inputs["edropout"])
    check_ratio(1 - target_kept, "1 - target_kept")
    example, total = example_of(task), parameters(model)
    widths = {layer.name: layer.width for layer in layers}

    def share(ratio: float) -> float:
        counts = kept_counts(layers, ratio, skip)
        kept = {name: torch.arange(widths[name]) < count for name, count in counts.items()}
        return parameters(prune_units(model, kept, example)) / total

    narrowest = min(layer.width for layer in layers if layer.number not in skip)
    return kept_counts(layers, nearest_ratio(share, target_kept, highest=1 - 1 / narrowest), skip)


def nearest_ratio(share: Callable[[float], float], target_kept: float, *, highest: float = 1.0) -> float:
    """The prune ratio, in steps of 1 / RATIO_STEPS up to `highest`, whose share of the parameters is nearest.

    Args:
        share: Share of the parameters that a prune ratio leaves; it falls with the ratio.
        target_kept: The share to reach.
        highest: The largest ratio that may be tried.
    """
    share = cache(share)
    ratios = [step / RATIO_STEPS for step in range(RATIO_STEPS) if step / RATIO_STEPS <= highest]
    first_below = bisect_left(ratios, -target_kept, key=lambda ratio: -share(ratio))
    return min(ratios[max(first_below - 1, 0) : first_below + 1], key=lambda ratio: abs(share(ratio) - target_kept))


def largest(scores: Tensor, count: int) -> Tensor:
    """True for the `count` largest scores; of equal ones the first stay."""
    kept = torch.zeros(len(scores), dtype=torch.bool)
    kept[scores.cpu().argsort(descending=True, stable=True)[:count]] = True
    return kept


def random_kept(size: int, count: int, generator: torch.Generator) -> Tensor:
    """True for `count` of `size` entries, drawn uniformly without replacement."""
    kept = torch.zeros(size, dtype=torch.bool)
    kept[torch.randperm(size, generator=generator)[:count]] = True
    return kept


def prune_units(model: nn.Module, kept: Mapping[str, Tensor], example: Tensor) -> nn.Module:
    """The physically smaller network with the kept units only, equal to the one with the others set to zero.

    Args:
        model: The network, or a result of this function; it is not changed.
        kept: layer -> bool over the filters (inputs of a linear layer) of the original architecture.
        example: One input.

    Raises:
        ValueError: a layer is unknown, loses all its units or cannot be cut exactly.
    """
    smaller = removal.prune(model, kept, example)
    for parameter in smaller.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return smaller


def remove(network: nn.Module, example: Tensor) -> nn.Module:
    """Physically remove the units that are exactly zero; a network without any comes back as it is.

    A layer whose units are all zero keeps one of them, since no layer can be empty.
    """
    if isinstance(network, removal.SmallerNetwork) or not any(map(_has_zero_unit, network.modules())):
        return network
    try:
        kept = removal.kept_units(network)
    except ValueError as error:
        warnings.warn(f"the network keeps its zero units, which are counted all the same: {error}", stacklevel=2)
        return network
    for units in kept.values():
        units[0] |= not units.any()
    return network if all(units.all() for units in kept.values()) else prune_units(network, kept, example)


def _has_zero_unit(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return bool((module.weight == 0).all(0).any())
    return isinstance(module, nn.Conv2d) and bool((module.weight == 0).flatten(1).all(1).any())
