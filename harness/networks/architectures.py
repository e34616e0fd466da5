"""Small networks for small images: CIFAR ResNets and a VGG."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

RESNET_WIDTHS = (16, 32, 64)
VGG8_WIDTHS = (16, 32, 64)
VGG8_HIDDEN = 256


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes (He et al. 2016, option B)."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def cifar_resnet(blocks: int, *, num_classes: int, in_channels: int) -> nn.Module:
    """The CIFAR ResNet of 6n+2 layers (He et al. 2016, arXiv:1512.03385, section 4.2).

    Args:
        blocks: n, the blocks of each of the three stages of 16, 32 and 64 channels.
        num_classes: Outputs.
        in_channels: Of the images, which may have any size.
    """
    channels = RESNET_WIDTHS[0]
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(),
    }
    for stage, width in enumerate(RESNET_WIDTHS, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"block{stage}_{block}"] = BasicBlock(channels, width, stride=stride)
            channels = width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(channels, num_classes)}
    return _initialised(nn.Sequential(OrderedDict(layers)))


def vgg8(*, num_classes: int, in_channels: int) -> nn.Module:
    """Six 3x3 convolutions with batch norm in three stages, one hidden linear layer; images of 8 pixels or more.

    The style of Simonyan & Zisserman 2015 (arXiv:1409.1556) at a size for seconds on a CPU: 91,226 parameters for ten
    classes of grey images.
    """
    layers: dict[str, nn.Module] = {}
    channels = in_channels
    for stage, width in enumerate(VGG8_WIDTHS, start=1):
        for number in (1, 2):
            layers[f"conv{stage}_{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{stage}_{number}"] = nn.BatchNorm2d(width)
            layers[f"relu{stage}_{number}"] = nn.ReLU()
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "hidden": nn.Linear(channels, VGG8_HIDDEN)}
    layers |= {"relu": nn.ReLU(), "linear": nn.Linear(VGG8_HIDDEN, num_classes)}
    return _initialised(nn.Sequential(OrderedDict(layers)))


def _initialised(model: nn.Module) -> nn.Module:
    """He initialisation of the convolutions (arXiv:1502.01852), as torchvision's ResNets have it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
