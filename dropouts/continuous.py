"""Continuous dropout: masks drawn from an interval instead of from zero and one."""

from __future__ import annotations

import torch
from torch import Tensor

from dropouts.plain import Noise


class Continuous(Noise):
    """y = x m / 0.5 with m ~ U(0, 1), or ~ N(0.5, sigma^2) clipped to [0, 1], for each value; identity in evaluation.

    Shen et al., TNNLS 29(9), 2018, arXiv:1911.12675. Both masks have mean 0.5; the paper scales by it when it predicts,
    this layer by its inverse when it trains, which is the same. Uniform noise has variance x^2 / 3.

    Args:
        sigma: Deviation of the Gaussian mask; uniform if None. The first author's scripts have 0.5 to 1; 0.2, quoted
            elsewhere for the paper, is not confirmed.
        clipped: Clip the Gaussian mask to [0, 1], as the first author's code does by default.

    Raises:
        ValueError: sigma that is not positive.
    """

    def __init__(self, *, sigma: float | None = None, clipped: bool = True) -> None:
        super().__init__()
        if sigma is not None and sigma <= 0:
            raise ValueError(f"the deviation of the mask must be positive, not {sigma}")
        self.sigma, self.clipped = sigma, clipped

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.sigma is None:
            return x * 2 * torch.rand_like(x)
        mask = 0.5 + self.sigma * torch.randn_like(x)
        return x * 2 * (mask.clamp(0, 1) if self.clipped else mask)

    def extra_repr(self) -> str:
        return f"sigma={self.sigma}, clipped={self.clipped}"
