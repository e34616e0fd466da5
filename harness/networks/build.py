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

from harness.kinds import Kind
from harness.kinds.classification import KIND as CLASSIFICATION
from harness.networks import names, zoo
from harness.networks.names import ModelError

__all__ = ["ModelError", "build"]

IMAGE_DIMENSIONS = 3


def build(name: str, *, num_classes: int, input_shape: tuple[int, ...], kind: Kind = CLASSIFICATION) -> nn.Module:
    """A freshly initialised network on the CPU; its weights depend on torch's global generator alone.

    Args:
        name: One of architectures/, torchvision's classification networks or timm's, looked up in this order; `timm.`
            in front of it skips the first two.
        num_classes: Outputs.
        input_shape: Of one input.
        kind: Says what an input and an output are.

    Raises:
        ModelError: nobody knows the name, or the network was not made for such inputs.
    """
    path = names.file_of(name)
    if path is None:
        zoo.require(name)
    build_one = zoo.build if path is None else _function(path)
    try:
        model = build_one(name, num_classes=num_classes, input_shape=input_shape)
    except (AssertionError, RuntimeError, ValueError, TypeError) as error:
        shape = " x ".join(map(str, input_shape))
        raise ModelError(f"{name} cannot be built for {kind.noun} of {shape} ({error})") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"build() of {name} must return a torch.nn.Module, not {type(model).__name__}")
    _try(model, name, num_classes, input_shape, kind)
    return model


def _function(path: Path) -> Callable[..., nn.Module]:
    """The function `build` of a file: being there is the registration."""
    spec = importlib.util.spec_from_file_location(f"architecture_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build


def _try(model: nn.Module, name: str, num_classes: int, input_shape: tuple[int, ...], kind: Kind) -> None:
    """Raise ModelError unless the network maps an input of this shape to what the kind's loss takes."""
    shape = " x ".join(map(str, input_shape))
    try:
        with torch.no_grad():
            outputs = model.eval()(kind.example(input_shape))
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        advice = "choose another network"
        if len(input_shape) == IMAGE_DIMENSIONS:
            key = f"'datasets.<name>.image_size_by_model.{name}'"
            advice = f"set config key {key} to the size that it was made for, often 224"
        raise ModelError(f"{name} cannot take {kind.noun} of {shape} ({reason}): {advice}") from error
    model.train()
    expected = (1, *kind.output_shape(input_shape, num_classes))
    if not isinstance(outputs, Tensor) or outputs.shape != expected:
        raise ModelError(
            f"{name} does not map {kind.noun} of {shape} to outputs of {' x '.join(map(str, expected[1:]))}: "
            f"choose a network for {kind.name}"
        )


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
