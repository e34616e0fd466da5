"""Filter pruning by l1 norm: remove the filters with the smallest weights from the dense network, then fine-tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn

from harness.pruning.layers import Layer, inner_layers
from harness.pruning.structured import counts_of, example_of, largest, prune_units
from harness.training.task import Task

Ratio = Annotated[float, "[0, 1)"]


def fit(
    model: nn.Module,
    task: Task,
    *,
    prune_ratio: Ratio | Sequence[Ratio] | None = None,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    skip: Sequence[Annotated[int, "[1, inf)"]] = (),
    greedy: bool = False,
) -> nn.Module:
    """Prune `model` by the l1 norm of its filters (Li et al., ICLR 2017, arXiv:1608.08710, section 3) and fine-tune.

    Args:
        model: The trained dense network.
        task: Data, recipe and loop.
        prune_ratio: Fraction of filters to remove from each layer, or one for each stage (a run of layers of equal
            width). The paper chooses it per network by sensitivity; 0.5 is what VGG-16 loses in its insensitive layers.
            None leaves the same share of the parameters as the EDropout cell of the same dataset, model and seed.
        target_kept: That share, in (0, 1], instead.
        skip: Sensitive layers that stay whole, by their number in execution order as the paper counts them: from 1,
            without shortcut convolutions.
        greedy: Leave input channels that are already removed out of the norm of the next layer's filters; the
            default scores all layers independently on the dense weights.

    Returns:
        The fine-tuned, physically smaller network.

    Raises:
        ValueError: a ratio outside [0, 1), two of them, an unknown layer, a layer without filters, nothing to prune.
    """
    layers = inner_layers(model, example_of(task))
    counts = counts_of(model, task, layers, prune_ratio=prune_ratio, target_kept=target_kept, skip=skip)
    kept = select(model, layers, counts, greedy=greedy)
    return task.train(prune_units(model, kept, example_of(task)))


def select(
    model: nn.Module, layers: Sequence[Layer], counts: dict[str, int], *, greedy: bool = False
) -> dict[str, Tensor]:
    """The filters with the largest l1 norms.

    Args:
        model: The dense network.
        layers: Prunable layers in execution order.
        counts: layer -> how many filters to keep.
        greedy: See `fit`.

    Returns:
        layer -> bool over its filters, True = kept.
    """
    weights = {layer.name: model.get_submodule(layer.name).weight.detach().abs().clone() for layer in layers}
    kept = {}
    for layer in layers:
        if layer.name not in counts:
            continue
        kept[layer.name] = largest(filter_norms(weights[layer.name]), counts[layer.name])
        for reader in layer.readers if greedy else ():
            if reader.name in weights:
                dropped = (~kept[layer.name]).nonzero().squeeze(1) + reader.start
                weights[reader.name][:, dropped.to(weights[reader.name].device)] = 0
    return kept


def filter_norms(weight: Tensor) -> Tensor:
    """Sum of absolute weights of each filter: (filters, channels, height, width) -> (filters,)."""
    return torch.linalg.vector_norm(weight, ord=1, dim=(1, 2, 3))
