"""MNIST and its relatives: four IDX files, gzipped as published or unpacked (yann.lecun.com/exdb/mnist)."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.data.prepared import DataError
from harness.sources import Part, Source
from harness.sources.download import Archive, fetch, unpack

# Both are often handed on unpacked or packed anew; these are the MD5s of the unpacked files. For Kuzushiji only those
# of the archives are published, so there the archives themselves are asked for.
UNPACKED_MD5 = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
}
UNSIGNED_BYTE = 0x08


def read(source: str, root: Path, *, download: bool) -> Source:
    """Read `mnist`, `kuzushiji` or `fashion` from `root`/<torchvision's folder>/raw.

    Raises:
        DataError: a file is missing, not the published one, truncated, or no IDX file.
    """
    from torchvision import datasets

    published = {"mnist": datasets.MNIST, "kuzushiji": datasets.KMNIST, "fashion": datasets.FashionMNIST}[source]
    folder = root / published.__name__ / "raw"
    archives = [
        Archive(filename, md5, tuple(mirror + filename for mirror in published.mirrors))
        for filename, md5 in published.resources
    ]
    contents = _contents(archives, folder, download, known=UNPACKED_MD5.get(source, {}))
    parts = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        names = [f"{prefix}-images-idx3-ubyte.gz", f"{prefix}-labels-idx1-ubyte.gz"]
        images, labels = (decode(contents[name], path=folder / name) for name in names)
        if images.dim() != 3 or labels.dim() != 1 or len(images) != len(labels):
            raise DataError(f"{folder / names[0]} and {names[1]} do not belong together: delete both")
        parts[part] = Part(labels=labels.long(), images=images[:, None].contiguous())
    checksums = {name: f"md5:{hashlib.md5(content).hexdigest()} (unpacked)" for name, content in contents.items()}
    classes = [name.split(" - ")[-1] for name in published.classes]
    return Source(parts=parts, class_names=classes, checksums=checksums)


def _contents(archives: list[Archive], folder: Path, download: bool, *, known: Mapping[str, str]) -> dict[str, bytes]:
    """The unpacked files: of the archives as published, or of any other packing of a content with a `known` MD5."""
    found = {archive.filename: _known_content(folder / archive.filename, known) for archive in archives}
    contents = {name: content for name, content in found.items() if content is not None}
    needed = [archive for archive in archives if archive.filename not in contents]
    return contents | {path.name: unpack(path) for path in fetch(needed, folder, download=download)}


def _known_content(packed: Path, known: Mapping[str, str]) -> bytes | None:
    """The unpacked file, from the archive `packed` or from beside it, if its checksum is known."""
    plain = packed.with_suffix("")
    for path in (packed, plain):
        # What is damaged is refused as an archive, by its published checksum.
        with contextlib.suppress(FileNotFoundError, DataError):
            content = unpack(path)
            if hashlib.md5(content).hexdigest() == known.get(plain.name):
                return content
    return None


def decode(content: bytes, *, path: Path) -> Tensor:
    """An IDX file's array of unsigned bytes.

    Args:
        content: Two zero bytes, the type, the number of dimensions, each dimension as 4 bytes big-endian, the values.
        path: Where it comes from, for the error.

    Raises:
        DataError: the content is something else or has another length than it says.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, UNSIGNED_BYTE]):
        raise DataError(f"{path} is no IDX file of unsigned bytes: delete it and start again")
    start = 4 + 4 * content[3]
    shape = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(f"{path} says {shape} and has {len(content) - start} bytes: delete it and start again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(shape)
