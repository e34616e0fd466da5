"""Uout: uniform multiplicative noise, whose variance is too small to upset a batch norm behind it."""

from __future__ import annotations

import torch
from torch import Tensor

from dropouts.plain import Noise


class Uout(Noise):
    """y = x (1 + r) with r ~ U(-b, b) for each value; identity in evaluation mode. The variance is x^2 b^2 / 3.

    Li et al., CVPR 2019, arXiv:1801.05134. The equation and the width 0.1 are quoted from memory and not verified.

    Args:
        rate: The half width b.

    Raises:
        ValueError: a width outside [0, 1].
    """

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"the half width of Uout's noise must be at least 0 and at most 1, not {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + torch.empty_like(x).uniform_(-self.rate, self.rate)) if self.training and self.rate else x

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
