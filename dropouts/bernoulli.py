"""Dropout as it came into the world: each value is dropped by a coin of its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dropouts.checks import check_rate
from dropouts.plain import Noise


class Bernoulli(Noise):
    """Multiplies by m / (1 - rate), m ~ Bernoulli(1 - rate) for each value (Srivastava et al., JMLR 15, 2014, sec. 4).

    nn.Dropout with a generator of its own if one is given; the identity in evaluation mode.

    Args:
        rate: Drop rate.
        spatial: One coin for each channel of (batch, channels, height, width) (Tompson et al., CVPR 2015).
        generator: Source of the coins, on the device of the values; torch's own if there is none.

    Raises:
        ValueError: a rate outside [0, 1).
    """

    def __init__(self, rate: float = 0.5, *, spatial: bool = False, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.rate, self.spatial, self.generator = check_rate(rate), spatial, generator

    def forward(self, x: Tensor) -> Tensor:
        if self.generator is None or not self.training:
            return (functional.dropout2d if self.spatial else functional.dropout)(x, self.rate, self.training)
        coins = x.new_empty((*x.shape[:2], 1, 1)) if self.spatial else torch.empty_like(x)
        kept = coins.bernoulli_(1 - self.rate, generator=self.generator)
        return x * kept / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate}"
