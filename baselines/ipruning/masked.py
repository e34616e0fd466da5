"""A network some of whose units compute zero while their weights stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from harness.pruning.layers import Layer


class MaskedNetwork(nn.Module):
    """Runs a network with its parameters multiplied by masks, and so masks their gradients as well.

    Args:
        model: The network; its parameters are not changed by a forward pass, its running statistics are.
        layers: Convolutions whose filters are switched, with their norms.
        linear: Names of linear layers whose inputs are switched.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], linear: Sequence[str] = ()) -> None:
        super().__init__()
        self.model, self.layers, self.linear = model, layers, linear
        self.masks: dict[str, Tensor] = {}

    def keep(self, kept: Mapping[str, Tensor]) -> None:
        """Choose the units that compute: layer -> bool over filters, or inputs of a linear layer."""
        self.masks = {}
        for layer in self.layers:
            mask = kept[layer.name]
            for owner in (layer.name, *layer.norms):
                for name, parameter in self.model.get_submodule(owner).named_parameters():
                    self.masks[f"{owner}.{name}"] = mask.reshape(-1, *[1] * (parameter.dim() - 1))
        for name in self.linear:
            self.masks[f"{name}.weight"] = kept[name][None]

    def forward(self, x: Tensor) -> Tensor:
        masked = {name: self.model.get_parameter(name) * mask for name, mask in self.masks.items()}
        return functional_call(self.model, masked, (x,))

    @torch.no_grad()
    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the kept weights only: averages of the optimiser and weight decay would move the others as well."""
        before = {name: self.model.get_parameter(name).clone() for name in self.masks}
        optimizer.step()
        for name, mask in self.masks.items():
            parameter = self.model.get_parameter(name)
            parameter.copy_(torch.where(mask, parameter, before[name]))
