"""Variational dropout: Gaussian dropout whose variance is learned, as inference under a log-uniform prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dropouts.affine import checked, noisy, per_unit, through, units_of
from dropouts.plain import Noise


def log_uniform_kl(alpha: Tensor) -> Tensor:
    """KL divergence of N(m, alpha m^2) from the log-uniform prior, up to a constant, for alpha in (0, 1].

    -KL = 0.5 log a + 1.16145124 a - 1.50204118 a^2 + 0.58629921 a^3 (Kingma, Salimans & Welling, NeurIPS 2015,
    arXiv:1506.02557; the coefficients are those of public implementations of it). It falls with alpha.
    """
    return -(0.5 * alpha.log() + 1.16145124 * alpha - 1.50204118 * alpha**2 + 0.58629921 * alpha**3)


class _LearnedVariance(nn.Module):
    """A variance alpha in (0, 1), the sigmoid of a parameter: the KL is not valid beyond one."""

    def __init__(self, shape: int, alpha: float) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise ValueError(f"the noise variance alpha must be more than 0 and less than 1, not {alpha}")
        self.logit_alpha = nn.Parameter(torch.full((shape,), math.log(alpha / (1 - alpha))))

    @property
    def alpha(self) -> Tensor:
        """(units,) or (1,): variance of the multiplicative noise; a / (1 + a) is the drop rate it stands for."""
        return self.logit_alpha.sigmoid()


class Variational(_LearnedVariance, Noise):
    """Type A, correlated weight noise: y = x (1 + sqrt(a) e), e ~ N(0, 1) for each value; identity in evaluation mode.

    Kingma, Salimans & Welling, NeurIPS 2015, section 3.2. All weights that read a unit share its noise.

    Args:
        features: Units of the input: its last dimension, or the channels of (batch, channels, height, width).
        alpha: Where the variance starts; 0.5, a drop rate of 1/3, is what Molchanov's code for this method starts at.
        per_unit: Learn one variance for each unit instead of one for the layer.

    Raises:
        ValueError: alpha outside (0, 1).
    """

    def __init__(self, features: int, *, alpha: float = 0.5, per_unit: bool = False) -> None:
        super().__init__(features if per_unit else 1, alpha)
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (1 + per_unit(self.alpha, x).sqrt() * torch.randn_like(x))

    def penalty(self) -> Tensor:
        """KL divergence summed over the units' scales, to be divided by the number of training examples."""
        return log_uniform_kl(self.alpha).mean() * self.features


class VariationalWeights(_LearnedVariance):
    """Type B, independent weight noise, in the place of a layer: y ~ N(x W + b, (a x^2) W^2); the layer in evaluation.

    Kingma, Salimans & Welling, NeurIPS 2015, section 3.1, with the local reparametrisation of section 2.2: each output
    is drawn on its own.

    Args:
        layer: The linear layer or convolution; its weights are the posterior means.
        alpha: Where the variance starts, as in `Variational`.
        per_unit: Learn one variance for each unit that the layer reads instead of one for the layer.

    Raises:
        ValueError: alpha outside (0, 1).
        TypeError: neither a linear layer nor a convolution.
    """

    def __init__(self, layer: nn.Module, *, alpha: float = 0.5, per_unit: bool = False) -> None:
        layer = checked(layer)
        super().__init__(units_of(layer) if per_unit else 1, alpha)
        self.layer = layer
        self.to(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.layer(x)
        variance = through(self.layer, per_unit(self.alpha, x) * x**2, self.layer.weight**2)
        return noisy(self.layer(x), variance)

    def penalty(self) -> Tensor:
        """KL divergence summed over the weights, to be divided by the number of training examples."""
        return log_uniform_kl(self.alpha).mean() * self.layer.weight.numel()

    def plain(self) -> nn.Module:
        """The layer that evaluation runs."""
        return self.layer
