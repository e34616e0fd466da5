"""ThiNet: remove the channels that the next layer misses least, layer by layer, with fine-tuning in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.thinet.reconstruction import gram_matrix, rescaled
from baselines.thinet.regression import drop_smallest_sum, keep_best_fit, relative_error, rescaling
from harness.pruning.layers import inner_layers
from harness.pruning.structured import counts_of, example_of, prune_units
from harness.training.task import Task

Ratio = Annotated[float, "[0, 1)"]


def fit(
    model: nn.Module,
    task: Task,
    *,
    prune_ratio: Ratio | Sequence[Ratio] | None = None,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    skip: Sequence[Annotated[int, "[1, inf)"]] = (),
    journal: bool = False,
    images_per_class: Annotated[int, "[1, inf)"] = 10,
    locations: Annotated[int, "[1, inf)"] = 10,
    epochs_per_layer: Annotated[int, "[1, inf)"] = 1,
) -> nn.Module:
    """Prune front to back by the statistics of the next layer's input (Luo et al., ICCV 2017, arXiv:1707.06342).

    Of residual blocks all convolutions but the last are pruned, the paper's policy for ResNet-50.

    Args:
        model: The trained dense network.
        task: Data, recipe and loop.
        prune_ratio: Fraction of filters to remove from each layer, or one for each stage (a run of layers of equal
            width); 0.5 is ThiNet-Conv and ThiNet-50. None leaves the same share of the parameters as the EDropout cell
            of the same dataset, model and seed.
        target_kept: That share, in (0, 1], instead.
        skip: Numbers of layers that stay whole, in execution order from 1, without shortcut convolutions.
        journal: Select as the journal version does (TPAMI 2019), by best fit instead of smallest sum.
        images_per_class: Training images that the statistics are taken from.
        locations: Sampled outputs of the next layer per image.
        epochs_per_layer: Fine-tuning after each layer, at most half of what is left of the budget in all; the other
            half follows after the last layer.

    Returns:
        The fine-tuned, physically smaller network.

    Raises:
        ValueError: a ratio outside [0, 1), two of them, an unknown layer, a layer without filters, nothing to
            prune, no samples.
    """
    for name, value in (("images_per_class", images_per_class), ("locations", locations)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    layers = inner_layers(model, example_of(task))
    counts = counts_of(model, task, layers, prune_ratio=prune_ratio, target_kept=target_kept, skip=skip)
    between = min(epochs_per_layer * len(counts), task.epochs_left // 2)
    choose = keep_best_fit if journal else drop_smallest_sum
    errors = []
    for number, (name, count) in enumerate(counts.items()):
        # Anew for the network as it is by now: removal moves the places of concatenated channels.
        layer = next(layer for layer in inner_layers(model, example_of(task)) if layer.name == name)
        images = sample(task, images_per_class)
        gram = gram_matrix(model, layer, images, locations, task.generator(f"locations of {name}"))
        kept = choose(gram, count)
        weights = rescaling(gram, kept)
        errors.append(relative_error(gram, kept, weights))
        model = prune_units(rescaled(model, layer, kept, weights), {name: kept.cpu()}, example_of(task))
        epochs = between * (number + 1) // len(counts) - between * number // len(counts)
        if epochs:
            task.train(model, epochs=epochs)
    task.log(largest_relative_error=max(errors, default=0.0))
    return task.train(model)


def sample(task: Task, images_per_class: int) -> Iterator[Tensor]:
    """Batches of training images, so many of each class as far as there are."""
    missing = torch.full((task.num_classes,), images_per_class)
    for x, y in task.train_loader.epoch(0):
        of_class = functional.one_hot(y.cpu(), task.num_classes)
        rank = (of_class.cumsum(0) * of_class).sum(1)
        chosen = rank <= missing[y.cpu()]
        missing = (missing - of_class.sum(0)).clamp(min=0)
        if chosen.any():
            yield x[chosen.to(x.device)]
        if not missing.any():
            return
