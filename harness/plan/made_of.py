"""What a result was made of: recorded in metrics.json, and compared with what is there now.

The configuration has its hash; this is the rest that moves a number: code, packages, data and what other cells left.
Nothing else says whether a result is current: neither times of files nor what Snakemake remembers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import kinds
from harness.machine.files import ROOT, read_json
from harness.networks import names
from harness.plan.code import code_hash

ZOO = ROOT / "harness" / "networks" / "zoo.py"
"""How networks of libraries are fitted to the images."""

VOLATILE = ("time", "latency", "provenance")
"""Sections of a result that differ between two runs of a cell."""

KINDS = ROOT / "harness" / "kinds"

MadeOf = dict[str, dict[str, str]]


def record(cell: Mapping[str, Any], *, fit: Path, data: Path, inputs: Iterable[Path]) -> MadeOf:
    """What a cell is about to be made of.

    Args:
        cell: As the plan gives it.
        fit: The method's file.
        data: The prepared dataset.
        inputs: What its rule names besides, such as the dense weights.

    Returns:
        Hashes of code by its place in the repository, versions of packages, checksums of data and of inputs by path.
    """
    now, (code, packages) = Present(), asked(cell)
    kind = KINDS / f"{kinds.of_data(cell['config']['data'])}.py"
    return {
        "code": {name: now.code(name) for name in [*code, _place(fit), _place(kind)]},
        "packages": {name: now.package(name) for name in packages},
        "data": {str(data): now.file(str(data))},
        "inputs": {str(path): now.file(str(path)) for path in inputs},
    }


def asked(cell: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The code and the packages that follow from the names of a cell: its architecture's and the rule of its method."""
    path, rule = names.file_of(cell["model"]), cell["method"].split("-")[0]
    rules = [ROOT / "workflow" / folder / f"{rule}.smk" for folder in ("baselines", "rules")]
    code = [_place(file) for file in (path or ZOO, *rules) if file.exists()]
    return code, [] if path else [names.library_of(cell["model"])]


def objection(cell: Mapping[str, Any], metrics: Mapping[str, Any], now: Present) -> str | None:
    """Why a result is not the one that is asked for, as the end of a sentence that starts with its path; else None.

    A package or a prepared dataset that is not there cannot be asked, and is taken to be as it was.
    """
    if metrics.get("config_hash") != cell["config_hash"]:
        return f"was made with configuration {metrics.get('config_hash')}, but the plan says {cell['config_hash']}"
    code, packages, data, inputs = (section(metrics, key) for key in ("code", "packages", "data", "inputs"))
    if not code:
        return "does not say what it was made of, as `python -m harness.run` does"
    missing = [name for name in now.asked(cell["model"], cell["method"]) if name not in code]
    if missing:
        return f"was made without {missing[0]}"
    for name, hashed in code.items():
        if now.code(name) != hashed:
            return f"was made with another {name}"
    for name, version in packages.items():
        if now.package(name) not in (version, None):
            return f"was made with {name} {version}, and {now.package(name)} is installed"
    for path, checksum in data.items():
        if now.file(path) not in (checksum, None):
            return f"was made from other data than {path} holds"
    for path, checksum in inputs.items():
        if now.file(path) != checksum:
            return f"was made from another {path}"
    return None


def checksum(metrics: Mapping[str, Any]) -> str:
    """SHA-256 of what another run of the cell must give again: an edit by hand shows, other times do not."""
    content = {key: value for key, value in metrics.items() if key not in ("checksum", *VOLATILE)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def section(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of what a result says that it was made of; empty where it says nothing."""
    made_of = metrics.get("made_of")
    found = made_of.get(key) if isinstance(made_of, dict) else None
    return found if isinstance(found, dict) else {}


class Present:
    """Code, packages and files as they are now; each is looked at once, so take a new one to look again."""

    def __init__(self) -> None:
        self.code = functools.cache(_code)
        self.package = functools.cache(_version)
        self.file = functools.cache(_checksum)
        self.asked = functools.cache(lambda model, method: asked({"model": model, "method": method})[0])


def _place(path: Path) -> str:
    """Of code: relative to the repository where it lies in it."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)


def _code(name: str) -> str | None:
    path = ROOT / name
    return code_hash(path) if path.exists() else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _checksum(name: str) -> str | None:
    """What identifies a file's content: the checksum that ours carry and that is verified when they are used.

    None if the file is missing or damaged.
    """
    path = Path(name)
    if path.name == "metrics.json":
        return read_json(path).get("checksum")
    try:
        if path.suffix == ".safetensors":
            return _header(path)["__metadata__"]["sha256"]
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None


def _header(path: Path) -> dict[str, Any]:
    """The JSON at the head of a safetensors file, after its length."""
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(min(length, path.stat().st_size)))
