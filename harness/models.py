"""Build an architecture by its name; save a trained or pruned network and load it again without pickle.

`python -m harness.models NAME ...` fails with a sentence for the first name that nobody knows.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edropout.subnetwork import prune
from harness import zoo
from harness.architectures import cifar_resnet, vgg8
from harness.files import replacing, write_text
from harness.zoo import ModelError

__all__ = ["ModelError", "build", "load", "save"]

CIFAR_RESNETS = {"resnet8": 1, "resnet20": 3, "resnet56": 9}
BASELINES = Path(__file__).resolve().parent.parent / "baselines"
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


def save(
    folder: str | Path, model: nn.Module, *, name: str, num_classes: int, input_shape: tuple[int, int, int]
) -> None:
    """Store the weights in model.safetensors and what is needed to rebuild the network in model.json.

    Args:
        folder: Where to.
        model: What `build` gave, or what `edropout.subnetwork.prune` made of it. A method that returns an architecture
            of its own sets `built_by` on it: {"method": file name in baselines/, "arguments": of its function `build`}.
        name: Architecture it was built as.
        num_classes: As for `build`.
        input_shape: As for `build`.
    """
    kept: Mapping[str, Tensor] | None = getattr(model, "kept", None)
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    with replacing(Path(folder) / "model.safetensors") as temporary:
        save_file(weights, temporary)
    content = {
        "architecture": name,
        "built_by": getattr(model, "built_by", None),
        "num_classes": num_classes,
        "input_shape": list(input_shape),
        "kept": None if kept is None else {layer: _indices(units) for layer, units in kept.items()},
    }
    write_text(Path(folder) / "model.json", json.dumps(content) + "\n")


def load(folder: str | Path) -> nn.Module:
    """Rebuild the network that `save` stored, pruned or not, in evaluation mode on the CPU.

    Raises:
        ModelError: a file is missing or damaged, or the two do not belong together.
    """
    folder = Path(folder)
    content = _description(folder / "model.json")
    shape = tuple(content["input_shape"])
    with torch.random.fork_rng(devices=[]):
        if content.get("built_by"):
            model = _build_by_method(folder, **content["built_by"])
        else:
            model = build(content["architecture"], num_classes=content["num_classes"], input_shape=shape)
    if content["kept"] is not None:
        sizes = {layer: _units(model, layer, folder) for layer in content["kept"]}
        kept = {layer: _mask(indices, sizes[layer]) for layer, indices in content["kept"].items()}
        model = prune(model, kept, torch.zeros(1, *shape))
    path = folder / "model.safetensors"
    try:
        model.load_state_dict(load_file(path))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: run the cell again") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} is truncated or damaged ({error}): run the cell again") from error
    except RuntimeError as error:
        raise ModelError(f"{path} holds another network than model.json says: run the cell again") from error
    return model.eval()


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


def _build_by_method(folder: Path, *, method: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A method's own architecture, built by the function `build` of its file in baselines/ and of no other."""
    path = BASELINES / f"{method}.py"
    if not method.isidentifier() or not path.exists():
        raise ModelError(f"{folder / 'model.json'} was made by the method '{method}', which baselines/ does not have")
    spec = importlib.util.spec_from_file_location(f"method_{method}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build(**arguments)


def _description(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing: run the cell again") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged ({error}): run the cell again") from error


def _indices(units: Tensor) -> list[int] | None:
    """The kept units of a layer; None = all."""
    return None if bool(units.all()) else units.nonzero().squeeze(1).tolist()


def _mask(indices: list[int] | None, size: int) -> Tensor:
    kept = torch.full((size,), indices is None)
    kept[indices or []] = True
    return kept


def _units(model: nn.Module, layer: str, folder: Path) -> int:
    """How many units a layer of the unpruned network has."""
    try:
        module = model.get_submodule(layer)
    except AttributeError as error:
        raise ModelError(f"{folder / 'model.json'} names the layer '{layer}', which its network lacks") from error
    return module.out_channels if isinstance(module, nn.Conv2d) else module.in_features


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
