"""Standout: the probability to keep a unit grows with its pre-activation, by the layer's own weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropouts.plain import Before


class Standout(nn.Module):
    """Behind a ReLU: y = x m with m ~ Bernoulli(q), q = sigmoid(alpha x + beta); y = x q in evaluation mode.

    Ba & Frey, NeurIPS 2013: the adaptive network shares the layer's weights up to a scale and an offset, q =
    sigmoid(alpha u + beta) of the pre-activation u. Behind a ReLU x is u wherever it is not zero, so that this is the
    same. It is so in front of the ReLU too, in the place of u. No gradient passes through the draw.

    Args:
        alpha: Scale of the pre-activation in the keep rate; 0 is dropout of rate sigmoid(-beta), without its rescaling.
        beta: Offset; larger keeps more. The defaults are of memory, not verified.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 0.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> Tensor:
        keep = torch.sigmoid(self.alpha * x + self.beta)
        return x * (keep.detach().bernoulli() if self.training else keep)

    def fold(self, reader: nn.Module) -> nn.Module:
        """This layer in front of the one behind: its factor depends on the input."""
        return Before(self, reader)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, beta={self.beta}"
