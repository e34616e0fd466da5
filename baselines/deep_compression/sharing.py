"""Layers whose weights share few values: k-means on the weights, then training of the shared values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class SharedWeight(nn.Module):
    """A weight whose kept entries take their values from a trained codebook; its gradient is summed over each value.

    Args:
        assignment: Shaped as the weight; 0 where it is zero, else 1 + the number of the value.
    """

    def __init__(self, assignment: Tensor) -> None:
        super().__init__()
        self.register_buffer("assignment", assignment)

    def forward(self, codebook: Tensor) -> Tensor:
        return torch.cat([codebook.new_zeros(1), codebook])[self.assignment]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The codebook: the mean weight of each value."""
        flat, size = self.assignment.flatten(), int(self.assignment.max()) + 1
        sums = weight.new_zeros(size).index_add_(0, flat, weight.flatten())
        return (sums / flat.bincount(minlength=size).clamp(min=1))[1:]


def share(layer: nn.Module, mask: Tensor, values: int) -> None:
    """Make a layer's kept weights share at most `values` values, which are trained in their stead (in place).

    Args:
        layer: A convolution or linear layer.
        mask: True where a weight is kept.
        values: Size of the codebook.
    """
    assignment = torch.zeros(mask.shape, dtype=torch.int64, device=mask.device)
    assignment[mask] = cluster(layer.weight.detach()[mask], values) + 1
    parametrize.register_parametrization(layer, "weight", SharedWeight(assignment))


def unshare(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Turn a shared weight into an ordinary one with the same values (in place).

    Returns:
        The assignment, as `SharedWeight` has it, and the codebook.
    """
    shared = layer.parametrizations.weight
    assignment, codebook = shared[0].assignment, shared.original.detach().clone()
    parametrize.remove_parametrizations(layer, "weight")
    return assignment, codebook


def cluster(values: Tensor, clusters: int, iterations: int = 100) -> Tensor:
    """One-dimensional k-means from centres that divide the range evenly, the paper's best initialisation.

    Args:
        values: (entries,).
        clusters: At most so many; empty ones are left out.
        iterations: Of Lloyd's algorithm, which usually converges earlier.

    Returns:
        (entries,) int: number of the cluster of each value, in ascending order of the centres.
    """
    ordered, order = values.double().sort()
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    centres = torch.linspace(float(ordered[0]), float(ordered[-1]), clusters, device=values.device, dtype=torch.float64)
    bounds = None
    for _ in range(iterations):
        edges = torch.searchsorted(ordered, (centres[1:] + centres[:-1]) / 2)
        ends = torch.cat([edges.new_zeros(1), edges, edges.new_full((1,), len(ordered))])
        filled = ends.diff() > 0
        new = ends[torch.cat([filled.new_ones(1), filled])]
        centres = (sums[new[1:]] - sums[new[:-1]]) / new.diff()
        if bounds is not None and torch.equal(bounds, new):
            break
        bounds = new
    sizes = new.diff()
    numbers = torch.arange(len(sizes), device=order.device).repeat_interleave(sizes)
    return torch.empty_like(order).scatter_(0, order, numbers)
