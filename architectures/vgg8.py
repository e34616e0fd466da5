"""A VGG for small images, in the style of Simonyan & Zisserman 2015 (arXiv:1409.1556), for seconds on a CPU."""

from collections import OrderedDict

from torch import nn

from architectures.initialisation import he

WIDTHS = (16, 32, 64)
HIDDEN = 256


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """Six 3x3 convolutions with batch norm in three stages, one hidden linear layer; images of 8 pixels or more.

    It has 91,226 parameters for ten classes of grey images.
    """
    layers: dict[str, nn.Module] = {}
    channels = input_shape[0]
    for stage, width in enumerate(WIDTHS, start=1):
        for number in (1, 2):
            layers[f"conv{stage}_{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{stage}_{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}_{number}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "hidden": nn.Linear(channels, HIDDEN)}
    layers |= {"relu": nn.ReLU(), "linear": nn.Linear(HIDDEN, num_classes)}
    return he(nn.Sequential(OrderedDict(layers)))
