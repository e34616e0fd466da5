"""Beta-Bernoulli dropout: units are kept with probabilities from a sparse prior, in general or for each input."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.affine import Affine, folded, per_unit
from dropouts.plain import Before

EULER = 0.5772156649015329
TEMPERATURE = 0.1
"""Of the relaxed Bernoulli masks, as in the authors' code."""


def relaxed_bernoulli(logit: Tensor) -> Tensor:
    """A mask near zero or one that gradients pass through: sigmoid((logit + logit u) / 0.1), u ~ U(0, 1)."""
    return torch.sigmoid((logit + torch.rand_like(logit).logit(eps=1e-7)) / TEMPERATURE)


def kumaraswamy_beta_kl(a: Tensor, b: Tensor, alpha: float) -> Tensor:
    """KL divergence of Kumaraswamy(a, b) from Beta(alpha, 1), exact.

    (1 - alpha / a) (-euler - digamma(b) - 1 / b) + log(a b / alpha) - (b - 1) / b.
    """
    return (1 - alpha / a) * (-EULER - b.digamma() - 1 / b) + (a * b / alpha).log() - (b - 1) / b


class BetaBernoulli(nn.Module):
    """y = x z, z ~ relaxed Bernoulli(pi) per example, pi = (1 - u^(1/b))^(1/a), u ~ U(0, 1): one keep rate per unit.

    Lee et al., arXiv:1805.10896, with the constants of the authors' code: the posterior of pi is Kumaraswamy(a, b), its
    prior Beta(alpha / units, 1), where the code has 0.0001 for alpha / units. In evaluation mode y = x E[pi], zero
    where E[pi] <= 0.001. Their training starts from a trained network, with ten times the learning rate for a and b.

    Args:
        features: Units of the input: its last dimension, or the channels of (batch, channels, height, width).
        alpha: First parameter of the prior; smaller is sparser.
        threshold: A unit is kept where its expected keep rate is more.
        speed: How many times as far an optimiser that normalises gradients, such as Adam, moves a and b per step as
            other parameters: 10 is the authors' second learning rate.
    """

    def __init__(self, features: int, *, alpha: float = 1e-4, threshold: float = 1e-3, speed: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.threshold, self.speed = alpha, threshold, speed
        self.raw_a = nn.Parameter(torch.full((features,), -1.0 / speed))
        self.raw_b = nn.Parameter(torch.full((features,), math.log(math.e - 1) / speed))  # b = 1

    @property
    def a(self) -> Tensor:
        """(units,) first parameter of the posterior."""
        return functional.softplus((self.speed * self.raw_a).clamp(min=-10))

    @property
    def b(self) -> Tensor:
        """(units,) second parameter of the posterior."""
        return functional.softplus((self.speed * self.raw_b).clamp(-10, 50))

    def expected(self) -> Tensor:
        """(units,) E[pi] = b B(1 + 1/a, b)."""
        a, b = self.a, self.b
        return torch.exp(b.log() + torch.lgamma(1 + 1 / a) + torch.lgamma(b) - torch.lgamma(1 + 1 / a + b))

    def logit_keep_rate(self) -> Tensor:
        """(units,) logit of one draw of pi, computed from log pi, which is as small as it likes."""
        uniform = torch.rand_like(self.raw_a).clamp(1e-7, 1 - 1e-7)
        log_pi = (torch.log(-torch.expm1(uniform.log() / self.b)) / self.a).clamp(max=-1e-6)
        return log_pi - torch.log(-torch.expm1(log_pi))

    def mask(self, x: Tensor) -> Tensor:
        """(batch, units) or like `x` without its positions: a draw in training mode, else the expected keep rates."""
        shape = x.shape[:2] if x.dim() == 4 else x.shape
        logits = self.logit_keep_rate() if self.training else None
        return self.scale().expand(shape) if logits is None else relaxed_bernoulli(logits.expand(shape))

    def forward(self, x: Tensor) -> Tensor:
        per_unit(self.raw_a, x)  # refuses another number of units
        mask = self.mask(x)
        return x * (mask[..., None, None] if x.dim() == 4 else mask)

    def penalty(self) -> Tensor:
        """KL divergence summed over the units, to be divided by the number of training examples."""
        return kumaraswamy_beta_kl(self.a, self.b, self.alpha).sum()

    def kept(self) -> Tensor:
        """(units,) bool: which units are not pruned."""
        return self.expected().detach() > self.threshold

    def scale(self) -> Tensor:
        """(units,) what evaluation multiplies the units by."""
        return self.expected() * self.kept()

    def fold(self, reader: Affine) -> nn.Module:
        """The layer behind, able to do without this one: exact zeros in what reads a pruned unit."""
        return folded(reader, self.scale().detach())


class DependentBetaBernoulli(nn.Module):
    """y = x z z', where z' ~ relaxed Bernoulli(phi(x)) says what this input needs of what z keeps.

    Lee et al., arXiv:1805.10896, as in the authors' code: phi = clamp(gamma (x - m) / s + beta + sigma e, 0, 1) with
    the running moments m, s of a batch norm, no gradient into x, and one e ~ N(0, 1) per unit and pass; an image's phi
    reads the means of its channels. The offsets have the posterior N(beta, sigma^2) and the prior N(0, 5), and start at
    beta = 10, where everything is kept: only an optimiser that normalises gradients, such as Adam, gets them down soon.
    In evaluation mode y = x E[pi] phi, zero where that factor <= 0.001.

    Args:
        independent: A trained beta-Bernoulli dropout, which stays as it is.
    """

    PRIOR_VARIANCE = 5.0

    def __init__(self, independent: BetaBernoulli) -> None:
        super().__init__()
        self.independent = independent.requires_grad_(False)
        self.norm = nn.BatchNorm1d(len(independent.raw_a)).to(independent.raw_a)
        nn.init.constant_(self.norm.bias, 10.0)
        self.raw_sigma = nn.Parameter(torch.zeros_like(independent.raw_a))

    @property
    def sigma(self) -> Tensor:
        """(units,) deviation of the offsets."""
        return functional.softplus(self.raw_sigma)

    def need(self, x: Tensor) -> Tensor:
        """(batch, units), or like `x` without positions, phi: the probability that an example needs a unit."""
        features = (x.mean((2, 3)) if x.dim() == 4 else x).detach()
        offset = self.sigma * torch.randn_like(self.raw_sigma) if self.training else 0.0
        return (self.norm(features.flatten(0, -2)) + offset).clamp(0, 1).view_as(features)

    def forward(self, x: Tensor) -> Tensor:
        need, mask = self.need(x), self.independent.mask(x)
        if self.training:
            mask = mask * relaxed_bernoulli(need.logit(eps=1e-6))
        else:
            mask = mask * need
            mask = mask * (mask > self.independent.threshold)
        return x * (mask[..., None, None] if x.dim() == 4 else mask)

    def penalty(self) -> Tensor:
        """KL divergence of the offsets summed over the units, to be divided by the number of training examples."""
        variance = (self.sigma**2 + self.norm.bias**2) / self.PRIOR_VARIANCE
        return (0.5 * (variance - 1 + math.log(self.PRIOR_VARIANCE)) - self.sigma.log()).sum()

    def kept(self) -> Tensor:
        """(units,) bool: which units some input may need."""
        return self.independent.kept()

    def fold(self, reader: Affine) -> nn.Module:
        """This layer in front of the one behind, which has exact zeros in what reads a pruned unit."""
        return Before(self, folded(reader, self.kept().to(self.raw_sigma)))
