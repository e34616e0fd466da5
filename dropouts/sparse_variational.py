"""Sparse variational dropout: a noise variance for each weight, and weights that are noise only are pruned."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.affine import checked, noisy, through


def sparse_kl(log_alpha: Tensor) -> Tensor:
    """KL divergence of N(m, alpha m^2) from the log-uniform prior for any alpha, zero for alpha = infinity.

    -KL = k1 sigmoid(k2 + k3 log a) - 0.5 log(1 + 1/a) - k1, k = 0.63576, 1.87320, 1.48695 (Molchanov, Ashukha & Vetrov,
    ICML 2017, arXiv:1701.05369, eq. 14). It falls with alpha.
    """
    return 0.5 * functional.softplus(-log_alpha) + 0.63576 * torch.sigmoid(-(1.87320 + 1.48695 * log_alpha))


class SparseVariational(nn.Module):
    """In the place of a layer: y ~ N(x W + b, x^2 sigma^2); the layer with zeros where log alpha >= 3 in evaluation.

    Molchanov, Ashukha & Vetrov, ICML 2017: additive noise of learned variance on each weight, drawn per output (local
    reparametrisation). log alpha = log sigma^2 - log W^2 is clipped to [-8, 8], and sigma^2 with it, as in the authors'
    code: a weight that goes to zero beyond the clip takes its noise along. Their training: Adam, a learning rate that
    falls linearly to zero, a penalty that is warmed up (zero for 5 epochs, whole from epoch 20 on).

    Args:
        layer: The linear layer or convolution; its weights are the posterior means.
        log_variance: Where log sigma^2 starts.
        threshold: Weights of log alpha from here on are pruned; 3 stands for a drop rate of 0.95.
        pruned_in_training: Leave pruned weights out of the mean while training too, as the authors' LeNet scripts do.
            A pruned weight can come back: its noise, which the data disfavour, stays.

    Raises:
        TypeError: neither a linear layer nor a convolution.
    """

    clip = 8.0

    def __init__(
        self,
        layer: nn.Module,
        *,
        log_variance: float = -10.0,
        threshold: float = 3.0,
        pruned_in_training: bool = True,
    ) -> None:
        super().__init__()
        self.layer = checked(layer)
        self.log_variance = nn.Parameter(torch.full_like(self.layer.weight, log_variance))
        self.threshold, self.pruned_in_training = threshold, pruned_in_training

    @property
    def log_alpha(self) -> Tensor:
        """Like the weight: log of noise variance over squared mean, clipped."""
        return (self.log_variance - (self.layer.weight**2 + 1e-16).log()).clamp(-self.clip, self.clip)

    def forward(self, x: Tensor) -> Tensor:
        log_alpha, weight = self.log_alpha, self.layer.weight
        variance = log_alpha.exp() * weight**2
        if self.pruned_in_training or not self.training:
            weight = weight * (log_alpha < self.threshold)
        mean = through(self.layer, x, weight, self.layer.bias)
        return noisy(mean, through(self.layer, x**2, variance)) if self.training else mean

    def penalty(self) -> Tensor:
        """KL divergence summed over the weights, to be divided by the number of training examples."""
        return sparse_kl(self.log_alpha).sum()

    def kept(self) -> Tensor:
        """Like the weight, bool: which weights evaluation uses."""
        return self.log_alpha.detach() < self.threshold

    def plain(self) -> nn.Module:
        """A layer of the class that was replaced, with exact zeros where a weight is pruned."""
        layer = copy.deepcopy(self.layer)
        with torch.no_grad():
            layer.weight.mul_(self.kept())
        return layer
