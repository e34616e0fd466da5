"""Save a trained or pruned network and load it again, without pickle."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edropout.subnetworks.removal import prune
from harness import kinds
from harness.kinds.classification import KIND as CLASSIFICATION
from harness.machine.files import ROOT, replacing, write_text
from harness.networks.build import ModelError, build

__all__ = ["ModelError", "load", "save"]


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    name: str,
    num_classes: int,
    input_shape: tuple[int, ...],
    kind: kinds.Kind = CLASSIFICATION,
) -> None:
    """Store the weights in model.safetensors and what is needed to rebuild the network in model.json.

    Args:
        folder: Where to.
        model: What `build` gave, or what `edropout.prune` made of it. A method that returns an architecture of its
            own sets `built_by` on it: {"method": file name in baselines/, "arguments": of its function `build`}; one
            that keeps layers of its own in the architecture sets `changed_by`, the same of its function `change`, which
            takes the plain network first.
        name: Architecture it was built as.
        num_classes: As for `build`.
        input_shape: As for `build`.
        kind: As for `build`.
    """
    kept: Mapping[str, Tensor] | None = getattr(model, "kept", None)
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    with replacing(Path(folder) / "model.safetensors") as temporary:
        save_file(weights, temporary)
    content = {
        "architecture": name,
        "built_by": getattr(model, "built_by", None),
        "changed_by": getattr(model, "changed_by", None),
        "kind": kind.name,
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
    shape, kind = tuple(content["input_shape"]), kinds.named(content.get("kind", kinds.DEFAULT))
    with torch.random.fork_rng(devices=[]):
        if content.get("built_by"):
            model = _method(folder, content["built_by"]).build(**content["built_by"]["arguments"])
        else:
            model = build(content["architecture"], num_classes=content["num_classes"], input_shape=shape, kind=kind)
        if content.get("changed_by"):
            model = _method(folder, content["changed_by"]).change(model, **content["changed_by"]["arguments"])
    if content["kept"] is not None:
        sizes = {layer: _units(model, layer, folder) for layer in content["kept"]}
        kept = {layer: _mask(indices, sizes[layer]) for layer, indices in content["kept"].items()}
        model = prune(model, kept, kind.example(shape))
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


def _method(folder: Path, named: Mapping[str, Any]) -> ModuleType:
    """The file of a method in baselines/, and no other, that built or changed an architecture."""
    method = named["method"]
    path = ROOT / "baselines" / f"{method}.py"
    if (ROOT / "baselines" / method / "fit.py").exists():
        path = ROOT / "baselines" / method / "fit.py"
    if not method.isidentifier() or not path.exists():
        raise ModelError(f"{folder / 'model.json'} was made by the method '{method}', which baselines/ does not have")
    spec = importlib.util.spec_from_file_location(f"method_{method}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
