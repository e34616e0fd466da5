"""LeNet-5 as Caffe trains it on MNIST (20-50-500), on which compression papers report: 431,080 parameters there."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

CHANNELS = (20, 50)
HIDDEN = 500
KERNEL = 5


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """Two 5x5 convolutions without padding, each with 2x2 max-pooling, and two linear layers; 16 pixels or more.

    The only non-linearity is a ReLU between the linear layers, as in Caffe's lenet_train_test.prototxt. Places for
    dropout are in front of both linear layers.
    """
    channels, height, width = input_shape
    layers: dict[str, nn.Module] = {}
    for number, filters in enumerate(CHANNELS, start=1):
        layers[f"conv{number}"] = nn.Conv2d(channels, filters, KERNEL)
        layers[f"pool{number}"] = nn.MaxPool2d(2)
        channels, height, width = filters, (height - KERNEL + 1) // 2, (width - KERNEL + 1) // 2
    layers |= {"flatten": nn.Flatten(), "drop1": nn.Dropout(0.0)}
    layers |= {"hidden": nn.Linear(channels * height * width, HIDDEN), "relu": nn.ReLU(), "drop2": nn.Dropout(0.0)}
    layers["linear"] = nn.Linear(HIDDEN, num_classes)
    return nn.Sequential(OrderedDict(layers))
