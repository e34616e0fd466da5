"""The way back: a trained network without the layers of the family, with exact zeros where they pruned."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Noise(nn.Module):
    """A layer of the family that is the identity in evaluation mode."""

    def plain(self) -> nn.Module:
        """What is left of it after training: nothing."""
        return nn.Identity()


class Before(nn.Module):
    """A layer of the family in front of the layer that reads it: what `replace` makes where there is no nn.Dropout.

    Args:
        dropout: The layer of the family.
        reader: The linear layer or convolution behind it.
    """

    def __init__(self, dropout: nn.Module, reader: nn.Module) -> None:
        super().__init__()
        self.dropout, self.reader = dropout, reader

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.dropout(x))

    def plain(self) -> nn.Module:
        """The layer that does in evaluation mode what both do."""
        fold: Any = getattr(self.dropout, "fold", None)
        return self.reader if fold is None else fold(self.reader)


def plain(network: nn.Module) -> nn.Module:
    """Puts plain layers in the place of those of the family, such that the evaluated network computes the same.

    What evaluation needs stays: a layer whose factor depends on the input (dependent beta-Bernoulli, standout), and
    DropConnect's moment matching.

    Args:
        network: Changed in place, unless it is itself a layer of the family.

    Returns:
        The network. Pruned weights, and those that read pruned units, are exact zeros.
    """
    return _plain(network, {})


def _plain(module: nn.Module, made: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in made:
        own: Any = getattr(module, "plain", None)
        made[module] = module if own is None else own().train(module.training)
        if made[module] is module:
            for name, child in list(module._modules.items()):  # with duplicates, unlike named_children
                if child is not None:
                    setattr(module, name, _plain(child, made))
    return made[module]
