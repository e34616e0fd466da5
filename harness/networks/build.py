"""Build an architecture by its name.

`python -m harness.networks.build NAME ...` fails with a sentence for the first name that nobody knows.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from harness.networks import zoo
from harness.networks.architectures import cifar_resnet, vgg8
from harness.networks.zoo import ModelError

__all__ = ["ModelError", "build"]

CIFAR_RESNETS = {"resnet8": 1, "resnet20": 3, "resnet56": 9}
OURS = (*CIFAR_RESNETS, "vgg8")


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A freshly initialised network on the CPU; its weights depend on torch's global generator alone.

    Args:
        name: One of ours, torchvision's classification networks or timm's, looked up in this order; `timm.` in front
            of it skips the first two.
        num_classes: Outputs.
        input_shape: (channels, height, width) of an image.

    Raises:
        ModelError: nobody knows the name, or the network was not made for such images.
    """
    channels = input_shape[0]
    if name in CIFAR_RESNETS:
        model = cifar_resnet(CIFAR_RESNETS[name], num_classes=num_classes, in_channels=channels)
    elif name == "vgg8":
        model = vgg8(num_classes=num_classes, in_channels=channels)
    else:
        zoo.require(name, OURS)
        model = zoo.build(name, num_classes=num_classes, input_shape=input_shape)
    _try(model, name, num_classes, input_shape)
    return model


def _try(model: nn.Module, name: str, num_classes: int, input_shape: tuple[int, int, int]) -> None:
    """Raise ModelError unless the network maps an image of this shape to logits."""
    shape = " x ".join(map(str, input_shape))
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(1, *input_shape))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise ModelError(
            f"{name} cannot take images of {shape} ({reason}): set config key "
            f"'datasets.<name>.image_size_by_model.{name}' to the size that it was made for, often 224"
        ) from error
    model.train()
    if not isinstance(logits, Tensor) or logits.shape != (1, num_classes):
        raise ModelError(f"{name} does not map an image of {shape} to {num_classes} logits: choose a classifier")


def main() -> int:
    for name in sys.argv[1:]:
        try:
            zoo.require(name, OURS)
        except ModelError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
