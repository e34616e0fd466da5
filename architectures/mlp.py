"""Multilayer perceptrons of any widths by name: `mlp_800_800` has two hidden layers of 800 units."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

NAMES = [r"mlp(_[1-9]\d*)+", "lenet_300_100"]
"""LeNet-300-100 is the MLP of that name: LeCun et al. (1998), Proc. IEEE 86(11), section III.C."""


def build(name: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Hidden linear layers with ReLU, each followed by a place for dropout, and a linear output.

    Args:
        name: `mlp` or `lenet`, and the widths of the hidden layers.
        num_classes: Classes, or 1 for a number.
        input_shape: Of one input, which is flattened.
    """
    layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
    before = math.prod(input_shape)
    for number, width in enumerate(map(int, name.split("_")[1:]), start=1):
        layers[f"hidden{number}"] = nn.Linear(before, width)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout(0.0)
        before = width
    layers["linear"] = nn.Linear(before, num_classes)
    return nn.Sequential(OrderedDict(layers))
