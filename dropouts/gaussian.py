"""Gaussian dropout: multiplicative noise of mean one where Bernoulli dropout has zeros and ones."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dropouts.checks import check_rate
from dropouts.plain import Noise


class Gaussian(Noise):
    """y = x (1 + sqrt(a) e) with e ~ N(0, 1) for each value and a = p / (1 - p); identity in evaluation mode.

    Srivastava et al., JMLR 15, 2014, section 10: mean and variance are those of Bernoulli dropout at drop rate p.

    Args:
        rate: The drop rate p of the Bernoulli dropout whose variance it has.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = check_rate(rate)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        return x * (1 + math.sqrt(self.rate / (1 - self.rate)) * torch.randn_like(x))

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
