"""DropConnect: single weights are dropped instead of units."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dropouts.affine import checked, through
from dropouts.checks import check_rate


def rectified_mean(mean: Tensor, deviation: Tensor) -> Tensor:
    """E[relu(u)] of u ~ N(mean, deviation^2): m Phi(m / s) + s phi(m / s), what the paper's samples converge to.

    It is never negative, so that the network's own ReLU behind the layer leaves it as it is.
    """
    ratio = mean / deviation.clamp(min=1e-12)
    density = torch.exp(-0.5 * ratio**2) / math.sqrt(2 * math.pi)
    return (mean * torch.special.ndtr(ratio) + deviation * density).clamp(min=0)


def sampled_mean(activation: Callable[[Tensor], Tensor], samples: int = 1000) -> Callable[[Tensor, Tensor], Tensor]:
    """The paper's own inference: the mean of `activation` over draws of N(mean, deviation^2).

    What stands behind the layer must leave the activation's values as they are.
    """

    def inference(mean: Tensor, deviation: Tensor) -> Tensor:
        total = torch.zeros_like(mean)
        for _ in range(samples):
            total += activation(mean + deviation * torch.randn_like(mean))
        return total / samples

    return inference


def mean_weights(mean: Tensor, deviation: Tensor) -> Tensor:
    """Inference by mean weights, as most public code has it: the mean before the activation."""
    return mean


class DropConnect(nn.Module):
    """In the place of a layer: y = x (W * M) / (1 - p) + b with M ~ Bernoulli(1 - p) for each weight.

    Wan et al., ICML 2013. In evaluation mode moments are matched: the pre-activation is about Gaussian with mean x W +
    b and variance p / (1 - p) x^2 W^2, and `inference` averages the activation over it. The paper does not divide by 1
    - p in training: its weights are ours times 1 / (1 - p).

    Args:
        layer: The linear layer or convolution; biases are not dropped.
        rate: Probability to drop a weight.
        inference: (mean, deviation) of the pre-activations -> the output in evaluation mode: `rectified_mean` for a
            layer before ReLU, `mean_weights` for one before nothing, such as the last.
        per_example: Draw a mask for each example, as the paper does, at the cost of one weight matrix each; else one
            for each batch.

    Raises:
        ValueError: a rate outside [0, 1).
        TypeError: neither a linear layer nor a convolution.
    """

    def __init__(
        self,
        layer: nn.Module,
        *,
        rate: float = 0.5,
        inference: Callable[[Tensor, Tensor], Tensor] = rectified_mean,
        per_example: bool = False,
    ) -> None:
        super().__init__()
        self.layer = checked(layer)
        self.rate, self.inference, self.per_example = check_rate(rate), inference, per_example

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return self._dropped(x) if self.rate else self.layer(x)
        if self.inference is mean_weights:
            return self.layer(x)
        variance = self.rate / (1 - self.rate) * through(self.layer, x**2, self.layer.weight**2)
        return self.inference(self.layer(x), variance.sqrt())

    def _dropped(self, x: Tensor) -> Tensor:
        def pass_through(values: Tensor, mask: Tensor) -> Tensor:
            return through(self.layer, values, self.layer.weight * mask, self.layer.bias)

        shape = (len(x), *self.layer.weight.shape) if self.per_example else self.layer.weight.shape
        masks = x.new_empty(shape).bernoulli_(1 - self.rate) / (1 - self.rate)
        if not self.per_example:
            return pass_through(x, masks)
        return torch.vmap(lambda one, mask: pass_through(one.unsqueeze(0), mask).squeeze(0))(x, masks)

    def plain(self) -> nn.Module:
        """The layer with its mean weights, if that is the inference; else this one."""
        return self.layer if self.inference is mean_weights else self

    def extra_repr(self) -> str:
        return f"rate={self.rate}, per_example={self.per_example}"
