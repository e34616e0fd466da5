"""Standout: the probability to keep a unit grows with its pre-activation, by the layer's own weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropouts.affine import checked


class Standout(nn.Module):
    """In the place of a layer before ReLU: u = x W + b, keep rate q = sigmoid(alpha u + beta); u m, m ~ Bernoulli(q).

    Ba & Frey, NeurIPS 2013: the adaptive network shares the layer's weights up to a scale and an offset. In evaluation
    mode the unit is multiplied by q. Masking u or relu(u) is the same, since m and q are not negative. No gradient
    passes through the draw, so that q follows the weights (of memory, not verified).

    Args:
        layer: The linear layer or convolution.
        alpha: Scale of the pre-activation in the keep rate; 0 is dropout of rate sigmoid(-beta), without its rescaling.
        beta: Offset; larger keeps more.

    Raises:
        TypeError: neither a linear layer nor a convolution.
    """

    def __init__(self, layer: nn.Module, *, alpha: float = 1.0, beta: float = 0.0) -> None:
        super().__init__()
        self.layer = checked(layer)
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.layer(x)
        keep = torch.sigmoid(self.alpha * outputs + self.beta)
        return outputs * (keep.bernoulli() if self.training else keep)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}"
