"""A training run's whole state on disk: safetensors with the rest as JSON in its header, checked before it is used.

No pickle. A file is written beside its target, flushed, and renamed; the one before it is kept as
`<name>.previous`, so a damaged newest checkpoint costs some epochs and not the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness.machine.files import replacing


class CheckpointError(ValueError):
    """A checkpoint that belongs to another configuration."""


class DamagedError(CheckpointError):
    """A file that does not hold what was written into it."""


def save(path: str | Path, state: Any, *, key: str) -> None:
    """Write a nested state of tensors, numbers, strings, lists, tuples and dictionaries.

    Args:
        path: Target file; a file that is there becomes `<path>.previous`.
        state: The state; tensors of any dtype, on any device.
        key: Of what the state belongs to (configuration, code, data); written into the file and demanded by `load`.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}
    tree = json.dumps(_split(state, tensors))
    metadata = {"tree": tree, "key": key, "sha256": _checksum(tensors, tree, key)}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
        if path.exists():
            os.replace(path, previous(path))


def load(path: str | Path, *, key: str) -> Any:
    """Read a state back, on the CPU.

    Raises:
        CheckpointError: written under another key.
        DamagedError: unreadable, truncated or altered.
    """
    metadata, tensors = _read(path)
    if metadata.get("key") != key:
        raise CheckpointError(f"checkpoint {path} belongs to another configuration, code or data")
    if metadata.get("sha256") != _checksum(tensors, metadata.get("tree", ""), key):
        raise DamagedError(f"checkpoint {path} is damaged (its checksum does not match)")
    return _join(json.loads(metadata["tree"]), tensors)


def load_newest(path: str | Path, *, key: str, warn: Callable[[str], None]) -> Any | None:
    """The newest intact state among `path` and `<path>.previous`, or None; each bad file is named through `warn`.

    A damaged file is moved to `<name>.damaged`, so that the next `save` does not put it in the place of a good one.
    """
    for candidate in (Path(path), previous(Path(path))):
        if candidate.exists():
            try:
                return load(candidate, key=key)
            except DamagedError as error:
                warn(f"{error}: it is not used")
                os.replace(candidate, candidate.with_name(f"{candidate.name}.damaged"))
            except CheckpointError as error:
                warn(f"{error}: it is not used")
    return None


def save_weights(path: str | Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Write a network's `state_dict` under its names, with a checksum."""
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in weights.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"sha256": _checksum(tensors)})


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read back what `save_weights` wrote.

    Raises:
        DamagedError: unreadable, truncated or altered.
    """
    metadata, tensors = _read(path)
    if metadata.get("sha256") != _checksum(tensors):
        raise DamagedError(f"{path} is damaged (its checksum does not match)")
    return tensors


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)
            return handle.metadata() or {}, tensors
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error


def previous(path: Path) -> Path:
    """Where `save` keeps the checkpoint that it replaces."""
    return path.with_name(f"{path.name}.previous")


def _checksum(tensors: dict[str, torch.Tensor], tree: str = "", key: str = "") -> str:
    digest = hashlib.sha256(f"{key}\n{tree}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _split(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON for `value`, with its tensors moved into `tensors`; what JSON cannot tell apart is tagged."""
    if isinstance(value, torch.Tensor):
        name = f"t{len(tensors):05d}"
        # A copy: tensors that share memory are refused by safetensors.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[_split(key, tensors), _split(item, tensors)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_split(item, tensors) for item in value]}
    if isinstance(value, list):
        return [_split(item, tensors) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}: use tensors, numbers, strings and containers")


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        if "tuple" in value:
            return tuple(_join(item, tensors) for item in value["tuple"])
        return {_join(key, tensors): _join(item, tensors) for key, item in value["dict"]}
    return value
