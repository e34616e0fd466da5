"""The CIFAR ResNets of 6n+2 layers, He et al. 2016 (arXiv:1512.03385, section 4.2), with shortcuts of option B."""

from collections import OrderedDict

from torch import Tensor, nn

from architectures.initialisation import he

NAMES = ["resnet8", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"]
WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes."""

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


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """`resnet<6n+2>`: three stages of n blocks with 16, 32 and 64 channels, for images of any size."""
    blocks = (int(name.removeprefix("resnet")) - 2) // 6
    channels = WIDTHS[0]
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(input_shape[0], channels, 3, padding=1, bias=False),
        "norm": nn.BatchNorm2d(channels),
        "relu": nn.ReLU(),
    }
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"block{stage}_{block}"] = BasicBlock(channels, width, stride=stride)
            channels = width
    layers |= {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten(), "linear": nn.Linear(channels, num_classes)}
    return he(nn.Sequential(OrderedDict(layers)))
