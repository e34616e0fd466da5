"""Concrete dropout: a relaxed Bernoulli mask whose drop rate is learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dropouts.affine import checked, units_of


class Concrete(nn.Module):
    """In the place of a layer: drops what it reads at a learned rate; the layer itself in evaluation mode.

    z = sigmoid((logit p + logit u) / t) with u ~ U(0, 1), y = layer(x (1 - z) / (1 - p)) (Gal, Hron & Kendall, NeurIPS
    2017, arXiv:1705.07832; constants of the authors' code). A convolution loses whole channels, as in their spatial
    version. Their predictions average 20 passes in training mode.

    Args:
        layer: The linear layer or convolution.
        rate: Where the drop rate starts.
        length_scale: Prior length scale of the weights.
        temperature: How far from binary the mask is; 0.1, and 2/3 for a convolution, if None.

    Raises:
        ValueError: a rate outside (0, 1).
        TypeError: neither a linear layer nor a convolution.
    """

    def __init__(
        self, layer: nn.Module, *, rate: float = 0.1, length_scale: float = 1e-4, temperature: float | None = None
    ) -> None:
        super().__init__()
        if not 0 < rate < 1:
            raise ValueError(f"a learned drop rate must start inside (0, 1), not at {rate}")
        self.layer = checked(layer)
        self.length_scale = length_scale
        self.temperature = temperature or (0.1 if isinstance(layer, nn.Linear) else 2 / 3)
        self.logit_rate = nn.Parameter(torch.full_like(self.layer.weight.flatten()[0], math.log(rate / (1 - rate))))

    @property
    def learned_rate(self) -> Tensor:
        """Scalar: the drop rate."""
        return self.logit_rate.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.layer(x)
        shape = x.shape if isinstance(self.layer, nn.Linear) else x.shape[:2] + (1,) * (x.dim() - 2)
        uniform = torch.rand(shape, dtype=x.dtype, device=x.device)
        dropped = torch.sigmoid((self.logit_rate + uniform.logit(eps=1e-7)) / self.temperature)
        return self.layer(x * (1 - dropped) / (1 - self.learned_rate))

    def penalty(self) -> Tensor:
        """KL divergence l^2 |W|^2 / (2 (1 - p)) - units H(p), to be divided by the number of training examples.

        H is the entropy of the mask; the bias counts as a weight, as in the authors' code. It goes with the mean
        negative log-likelihood; a squared error without its 1/2 needs twice as much, which is where the authors' factor
        2 / N comes from.
        """
        rate = self.learned_rate
        entropy = -(rate * rate.log() + (1 - rate) * (1 - rate).log())
        squares = sum(parameter.square().sum() for parameter in self.layer.parameters())
        return self.length_scale**2 * squares / (2 * (1 - rate)) - units_of(self.layer) * entropy

    def plain(self) -> nn.Module:
        """The layer that evaluation runs."""
        return self.layer
