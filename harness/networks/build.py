"""Build an architecture by its name.

`python -m harness.networks.build NAME ...` fails with a sentence for the first name that nobody knows.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.networks import names, zoo
from harness.networks.names import ModelError

__all__ = ["ModelError", "build"]


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A freshly initialised network on the CPU; its weights depend on torch's global generator alone.

    Args:
        name: One of architectures/, torchvision's classification networks or timm's, looked up in this order; `timm.`
            in front of it skips the first two.
        num_classes: Outputs.
        input_shape: (channels, height, width) of an image.

    Raises:
        ModelError: nobody knows the name, or the network was not made for such images.
    """
    path = names.file_of(name)
    if path is None:
        zoo.require(name)
    build_one = zoo.build if path is None else _function(path)
    try:
        model = build_one(name, num_classes=num_classes, input_shape=input_shape)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        shape = " x ".join(map(str, input_shape))
        raise ModelError(f"{name} cannot be built for images of {shape} ({error})") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"build() of {name} must return a torch.nn.Module, not {type(model).__name__}")
    _try(model, name, num_classes, input_shape)
    return model


def _function(path: Path) -> Callable[..., nn.Module]:
    """The function `build` of a file: being there is the registration."""
    spec = importlib.util.spec_from_file_location(f"architecture_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


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
            if names.file_of(name) is None:
                zoo.require(name)
        except ModelError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
