"""Information dropout: log-normal noise whose size depends on the input, and a price on what gets through it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from dropouts.affine import checked


class Information(nn.Module):
    """In the place of a layer before ReLU: y = layer(x) exp(alpha(x) e), e ~ N(0, 1); y = layer(x) in evaluation.

    Achille & Soatto, TPAMI 2018, arXiv:1611.01353, with the constants of the authors' code: alpha(x) = 0.001 +
    0.7 sigmoid(a second layer of the same shape, applied to x). The noise is positive, so that it may act before ReLU.
    With nn.Identity as the layer it takes the place of nn.Dropout, and alpha reads what it acts on.

    Args:
        layer: The linear layer or convolution, or another module if `noise` is given.
        noise: Gives the logits of alpha, shaped like the layer's output; a layer like `layer` if None.
        beta: Price of information; 3 in the authors' CIFAR-10 script.
        max_alpha: Largest noise.

    Raises:
        TypeError: neither a linear layer nor a convolution, and no `noise`.
    """

    def __init__(
        self, layer: nn.Module, noise: nn.Module | None = None, *, beta: float = 3.0, max_alpha: float = 0.7
    ) -> None:
        super().__init__()
        if noise is None:
            noise = copy.deepcopy(checked(layer))
            noise.reset_parameters()
        self.layer, self.noise = layer, noise
        self.beta, self.max_alpha = beta, max_alpha
        self.read: Tensor | None = None

    def alpha(self, x: Tensor) -> Tensor:
        """Deviation of the log noise, one for each output value."""
        return 0.001 + self.max_alpha * torch.sigmoid(self.noise(x))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.layer(x)
        alpha = self.alpha(x)
        self.read = alpha
        return self.layer(x) * torch.exp(alpha * torch.randn_like(alpha))

    def penalty(self) -> Tensor:
        """beta KL of the last pass in training mode, to be divided by the number of training examples as in the code.

        KL = -log(alpha / (max_alpha + 0.001)) under the log-uniform prior that suits ReLU, summed over an example's
        outputs, its mean over the batch; zero before the first pass.
        """
        if self.read is None:
            return next(self.parameters()).new_zeros(())
        kl = -torch.log(self.read / (self.max_alpha + 0.001))
        return self.beta * kl.sum() / len(kl)

    def plain(self) -> nn.Module:
        """The layer that evaluation runs."""
        return self.layer

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"read": None}  # the last pass's graph can be neither copied nor saved
