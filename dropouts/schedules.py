"""Early, late and ramped dropout: how the rate of any layer of the family follows the training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def early(cutoff: float = 1 / 6) -> Callable[[float], float]:
    """Falls linearly from one to zero at `cutoff`, a fraction of the training.

    Liu et al., ICML 2023, arXiv:2303.01500; the default is what the authors' command lines say: 50 of 300 epochs.
    """
    _check(cutoff)
    return lambda position: max(0.0, 1 - position / cutoff)


def late(cutoff: float = 1 / 6) -> Callable[[float], float]:
    """Zero until `cutoff`, one from there on (Liu et al., ICML 2023, arXiv:2303.01500)."""
    _check(cutoff)
    return lambda position: float(position >= cutoff)


def ramp(cutoff: float = 1.0) -> Callable[[float], float]:
    """Rises linearly from zero to one at `cutoff`, as DropBlock's rate does (Ghiasi et al., arXiv:1810.12890)."""
    _check(cutoff)
    return lambda position: min(1.0, position / cutoff)


def _check(cutoff: float) -> None:
    if not 0 < cutoff <= 1:
        raise ValueError(f"a schedule's cutoff must be more than 0 and at most 1, not {cutoff}")


class Scheduled(nn.Module):
    """Any layer of the family with a strength that follows the training: its `rate` times `factor(position)`.

    A layer without a `rate`, because it learns one, is on where the factor is positive and off, penalty included, where
    it is zero. `set_position` says where the training is; the position is part of the state_dict.

    Args:
        dropout: The layer.
        factor: Position in [0, 1] of the training -> what the rate is multiplied by, in [0, 1].
    """

    position: Tensor

    def __init__(self, dropout: nn.Module, factor: Callable[[float], float]) -> None:
        super().__init__()
        self.dropout, self.factor = dropout, factor
        self.full_rate = getattr(dropout, "rate", None)
        self.register_buffer("position", torch.zeros((), dtype=torch.float64))
        self.register_load_state_dict_post_hook(lambda module, _: module._follow())
        self._follow()

    def set_position(self, position: float) -> None:
        """Say where the training is: 0 at its start, 1 at its end."""
        self.position.fill_(position)
        self._follow()

    def _follow(self) -> None:
        self.strength = self.factor(float(self.position))
        if self.full_rate is not None:
            self.dropout.rate = self.full_rate * self.strength
        self.train(self.training)

    def train(self, mode: bool = True) -> Scheduled:
        super().train(mode)
        self.dropout.train(mode and self.strength > 0)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)

    def penalty(self) -> Tensor:
        """The layer's penalty while it is on, else zero."""
        own: Any = getattr(self.dropout, "penalty", None)
        return torch.zeros((), device=self.position.device) if own is None or not self.strength else own()

    def plain(self) -> nn.Module:
        """What is left of the layer after training."""
        own: Any = getattr(self.dropout, "plain", None)
        return nn.Identity() if own is None else own()

    def extra_repr(self) -> str:
        return f"strength={self.strength}"


def set_position(network: nn.Module, position: float) -> None:
    """Tell every scheduled layer of a network where the training is, from 0 to 1; call it before each step."""
    for module in network.modules():
        if isinstance(module, Scheduled):
            module.set_position(position)
