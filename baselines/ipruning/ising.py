"""The Ising energy of pruning states: how alike the filters of a layer are, how much their feature maps tell.

Salehinejad & Valaee, arXiv:2102.05437, in the form of the authors' code (sparsifai/ipruning, pidropout.py). The matrix
of interactions J has a block for each layer and one for each pair of consecutive layers and is -1 elsewhere; it is
never formed, so memory grows with the squares of the layers' widths and not with that of all units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.pruning.layers import Layer

BINS = 256
RIDGE = 1e-3
"""Added to covariances, relative to the layer's mean variance: few kernels of many pixels leave them singular."""
PENALTY = 1e5


@dataclass(frozen=True)
class Ising:
    """Interactions and sizes of consecutive layers; the last may be linear, without interactions of its own.

    Attributes:
        divergences: For each layer (width, width) or None.
        entropies: For each layer (width,), its interaction with every unit of the next layer.
        parameters: For each layer the number of its parameters.
        outputs: Number of outputs; they count as units that are always kept.
    """

    divergences: list[Tensor | None]
    entropies: list[Tensor]
    parameters: list[int]
    outputs: int

    def energy(self, states: Tensor, minimum_kept: float = 0.0) -> Tensor:
        """E(s) = -s^T J s + (sum of s)(sum of J) / D + a penalty for keeping too few parameters.

        Args:
            states: (states, units) bool, without the outputs.
            minimum_kept: Share of the parameters below which the penalty begins.

        Returns:
            (states,) float64.
        """
        widths = [len(entropy) for entropy in self.entropies]
        layers = states.double().split(widths, dim=1)
        counts = [layer.sum(1) for layer in layers] + [
            states.new_full((len(states),), self.outputs, dtype=torch.float64)
        ]
        units, kept = sum(widths) + self.outputs, sum(counts)
        quadratic, total = -(kept**2), -float(units**2)
        for number, (layer, divergence, entropy) in enumerate(
            zip(layers, self.divergences, self.entropies, strict=True)
        ):
            quadratic = quadratic + (layer @ entropy) * counts[number + 1]
            total = total + entropy.sum() * (widths[number + 1] if number + 1 < len(widths) else self.outputs)
            if divergence is not None:
                quadratic = quadratic + ((layer @ divergence) * layer).sum(1)
                total = total + divergence.sum()
        shares = [count / width for count, width in zip(counts, widths, strict=False)]
        ratio = sum(share * size for share, size in zip(shares, self.parameters, strict=True)) / sum(self.parameters)
        return -quadratic + kept * total / units + units * PENALTY * (minimum_kept - ratio).clamp(min=0)


def interactions(
    model: nn.Module, layers: Sequence[Layer], linear: Sequence[str], maps: Sequence[Tensor], outputs: int
) -> Ising:
    """The interactions of a network's units at its present weights.

    Args:
        model: The network.
        layers: Its convolutions.
        linear: At most one name: the last linear layer, whose inputs are units.
        maps: For each convolution (width, height, width) float: what `feature_maps` gives.
        outputs: Number of outputs.
    """
    weights = [model.get_submodule(layer.name).weight.detach() for layer in layers]
    inputs = [model.get_submodule(name).weight.detach() for name in linear]
    return Ising(
        divergences=[*map(kernel_divergence, weights), *(None for _ in inputs)],
        entropies=[
            *map(map_entropy, maps),
            *(weight.new_zeros(weight.shape[1], dtype=torch.float64) for weight in inputs),
        ],
        parameters=[weight.numel() for weight in (*weights, *inputs)],
        outputs=outputs,
    )


def kernel_divergence(weight: Tensor) -> Tensor:
    """Kullback-Leibler divergence between the Gaussians fitted to the kernels of any two filters.

    Args:
        weight: (filters, channels, height, width); a filter's kernels are its samples.

    Returns:
        (filters, filters) float64, symmetric, the divergence of the earlier from the later filter over the largest,
        halved.
    """
    samples = weight.double().flatten(2)
    channels, pixels = samples.shape[1:]
    mean = samples.mean(1)
    centred = samples - mean[:, None]
    covariance = centred.transpose(1, 2) @ centred / max(channels - 1, 1)
    ridge = RIDGE * samples.var(unbiased=False).clamp(min=1e-30)
    covariance = covariance + ridge * torch.eye(pixels, dtype=torch.float64, device=weight.device)
    factor = torch.linalg.cholesky(covariance)
    precision = torch.cholesky_inverse(factor)
    logarithm = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
    flat, weighted = precision.flatten(1), torch.einsum("jab,jb->ja", precision, mean)
    # Each term for all pairs (i, j) as one product of matrices.
    trace = covariance.flatten(1) @ flat.T
    squares = torch.einsum("ia,ib->iab", mean, mean).flatten(1) @ flat.T
    distance = squares - 2 * mean @ weighted.T + (weighted * mean).sum(1)
    divergence = (trace + distance + logarithm - logarithm[:, None] - pixels) / 2
    upper = divergence.clamp(min=0).triu(1)
    return (upper + upper.T) / (2 * upper.max().clamp(min=1e-30))


def map_entropy(maps: Tensor) -> Tensor:
    """Entropy of the histogram of each feature map, relative to the largest of the layer.

    Args:
        maps: (filters, height, width), mean over a batch.

    Returns:
        (filters,) float64.
    """
    low, high = maps.min(), maps.max()
    bins = ((maps - low) / (high - low).clamp(min=1e-30) * (BINS - 1)).long().clamp(0, BINS - 1).flatten(1)
    counts = torch.zeros(len(maps), BINS, dtype=torch.float64, device=maps.device)
    counts.scatter_add_(1, bins, torch.ones_like(bins, dtype=torch.float64))
    share = counts / counts.max()
    entropy = -torch.special.xlogy(share, share).sum(1) / torch.log(torch.tensor(2.0, dtype=torch.float64))
    return entropy / entropy.max().clamp(min=1e-30)


@torch.no_grad()
def feature_maps(model: nn.Module, layers: Sequence[Layer], x: Tensor) -> list[Tensor]:
    """Outputs of the convolutions, mean over the batch, from a pass that leaves running statistics alone."""
    found: dict[str, Tensor] = {}
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]

    def store(name: str, output: Tensor) -> None:
        found[name] = output.float().mean(0)

    handles = [
        model.get_submodule(layer.name).register_forward_hook(
            lambda module, inputs, output, name=layer.name: store(name, output)
        )
        for layer in layers
    ]
    for norm in norms:
        norm.track_running_stats = False
    model(x)
    for norm in norms:
        norm.track_running_stats = True
    for handle in handles:
        handle.remove()
    return [found[layer.name] for layer in layers]
