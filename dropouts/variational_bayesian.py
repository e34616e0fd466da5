"""Variational Bayesian dropout: variational dropout under a hierarchical prior that is proper."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.affine import Affine, folded, per_unit
from dropouts.sparse_variational import SparseVariational


def hierarchical_kl(log_alpha: Tensor) -> Tensor:
    """KL divergence of N(m, alpha m^2) from N(0, g), at the g that makes it least: 0.5 log(1 + 1/a).

    Liu et al., CVPR 2019, arXiv:1811.07533: a zero-mean Gaussian prior whose variance has a uniform hyper-prior. The
    closed form is derived: 0.5 (log(g / s) + (s + m^2) / g - 1) with s = alpha m^2 is least at g = s + m^2. The first
    author's code (`sbp_layer.py`) has the same. It falls with alpha.
    """
    return 0.5 * functional.softplus(-log_alpha)


class VariationalBayesian(nn.Module):
    """Noise on units: y = x (mu + sigma e), e ~ N(0, 1); units of log alpha >= 0 are pruned, in training too.

    Liu et al., CVPR 2019, as in the first author's code: log alpha = log sigma^2 - log mu^2 is clipped to [-10, 10]; in
    evaluation mode y = x mu, zero where pruned. Two things differ: the code shares one draw of the noise among the
    examples of a batch and among the positions of a channel, here each example has its own.

    Args:
        features: Units of the input: its last dimension, or the channels of (batch, channels, height, width).
        log_variance: Where log sigma^2 starts.
        threshold: Units of log alpha from here on are pruned; at 0 a unit is as much noise as signal.
    """

    clip = 10.0

    def __init__(self, features: int, *, log_variance: float = -9.0, threshold: float = 0.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.empty(features).normal_(1.0, 0.01))
        self.log_variance = nn.Parameter(torch.full((features,), log_variance))
        self.threshold = threshold

    @property
    def log_alpha(self) -> Tensor:
        """(units,) log of noise variance over squared mean, clipped."""
        return (self.log_variance - (self.mean**2 + 1e-14).log()).clamp(-self.clip, self.clip)

    def forward(self, x: Tensor) -> Tensor:
        kept = per_unit(self.kept().to(x.dtype), x)
        mean = per_unit(self.mean, x) * kept
        if not self.training:
            return x * mean
        shape = (*x.shape[:2], 1, 1) if x.dim() == 4 else x.shape
        noise = torch.randn(shape, dtype=x.dtype, device=x.device)
        return x * (mean + per_unit((0.5 * self.log_variance).exp(), x) * kept * noise)

    def penalty(self) -> Tensor:
        """KL divergence summed over the units, to be divided by the number of training examples."""
        return hierarchical_kl(self.log_alpha).sum()

    def kept(self) -> Tensor:
        """(units,) bool: which units are not pruned."""
        return self.log_alpha.detach() < self.threshold

    def fold(self, reader: Affine) -> nn.Module:
        """The layer behind, able to do without this one: exact zeros in what reads a pruned unit."""
        return folded(reader, (self.mean * self.kept()).detach())


class VariationalBayesianWeights(SparseVariational):
    """Noise on weights: `SparseVariational` with the hierarchical prior's KL and the threshold of the units.

    Liu et al., CVPR 2019, whose compression results are of this form; the first author's code has only the one on
    units, so that threshold and clip of log alpha on weights are taken from there.
    """

    clip = 10.0

    def __init__(
        self,
        layer: nn.Module,
        *,
        log_variance: float = -10.0,
        threshold: float = 0.0,
        pruned_in_training: bool = True,
    ) -> None:
        super().__init__(layer, log_variance=log_variance, threshold=threshold, pruned_in_training=pruned_in_training)

    def penalty(self) -> Tensor:
        """KL divergence summed over the weights, to be divided by the number of training examples."""
        return hierarchical_kl(self.log_alpha).sum()
