"""Advanced Dropout: a logistic-normal mask whose two parameters are read off the batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.plain import Noise


class Advanced(Noise):
    """y = x m / E[m], m = sigmoid(mu + sigma e), e ~ N(0, 1) for each value; identity in evaluation mode.

    Xie et al., TPAMI 44(9), 2022, arXiv:2010.05244, as in the authors' code: h = W_h x + b_h has features / 16 values,
    mu is the batch's mean of W_mu h + b_mu, sigma that of softplus(W_sigma h + b_sigma); E[m] is about sigmoid(mu /
    sqrt(1 + 3.14 sigma^2 / 8)), within 1.2 % for mu >= -1 and sigma <= 3, and passes no gradient. An image's h reads
    the means of its channels, which is ours: the code takes vectors only.

    Args:
        features: Units of the input: its last dimension, or the channels of (batch, channels, height, width).
        reduction: How many features there are for one value of h.
        prior: Weight of the prior term in `penalty`. 0 is the released code, which has none; the paper's own prior
            could not be read. Ours is the layer's mask before training.
    """

    def __init__(self, features: int, *, reduction: int = 16, prior: float = 0.0) -> None:
        super().__init__()
        hidden = max(1, features // reduction)

        def small(*shape: int) -> nn.Parameter:
            return nn.Parameter(0.01 * torch.rand(shape))

        self.weight_h, self.bias_h = small(hidden, features), small(1)
        self.weight_mu, self.bias_mu = small(1, hidden), nn.Parameter(torch.zeros(1))
        self.weight_sigma, self.bias_sigma = small(1, hidden), nn.Parameter(torch.full((1,), 1.2))
        self.prior = prior
        self.read: tuple[Tensor, Tensor, int] | None = None

    def mask_parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """mu and sigma of a batch, scalars."""
        hidden = functional.linear(x.mean((2, 3)) if x.dim() == 4 else x, self.weight_h, self.bias_h)
        mu = functional.linear(hidden, self.weight_mu, self.bias_mu).mean()
        sigma = functional.softplus(functional.linear(hidden, self.weight_sigma, self.bias_sigma)).mean()
        return mu, sigma

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        mu, sigma = self.mask_parameters(x)
        self.read = mu, sigma, x[0].numel()
        mask = torch.sigmoid(mu + sigma * torch.randn_like(x))
        mean = torch.sigmoid(mu.detach() / torch.sqrt(1 + 3.14 / 8 * sigma.detach() ** 2))
        return x * mask / mean

    def penalty(self) -> Tensor:
        """Prior term of the last pass in training mode, to be divided by the number of training examples.

        KL(N(mu, sigma^2) | N(0, softplus(1.2)^2)), which is that of the masks, times the values masked in an example,
        times `prior`; zero without one. For the bound of a mask drawn anew for each example, `prior` is the number of
        training examples.
        """
        if not self.prior or self.read is None:
            return self.bias_mu.new_zeros(())
        mu, sigma, values = self.read
        start = math.log1p(math.exp(1.2))
        kl = torch.log(start / sigma) + (sigma**2 + mu**2) / (2 * start**2) - 0.5
        return self.prior * values * kl

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"read": None}  # the last pass's graph can be neither copied nor saved
