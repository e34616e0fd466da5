"""CIFAR-10 and CIFAR-100 in their "python version" (Krizhevsky 2009), read straight from the archive."""

from __future__ import annotations

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy
import torch

from harness.data.prepared import DataError
from harness.sources import Part, Source
from harness.sources.download import Archive, check, fetch

SHAPE = (3, 32, 32)


def read(source: str, root: Path, *, download: bool) -> Source:
    """Read `cifar10` or `cifar100` from the archive in `root`, or from its unpacked folder there.

    Raises:
        DataError: a file is missing, is not the published one, or is damaged.
    """
    from torchvision import datasets

    published = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[source]
    meta = published.meta
    lists = {"train": published.train_list, "test": published.test_list, "meta": [(meta["filename"], meta["md5"])]}
    files = [Archive(filename, md5, ()) for entries in lists.values() for filename, md5 in entries]
    contents, checksums = _contents(published, files, root, download)
    parts = {}
    for part in ("train", "test"):
        batches = [_unpickle(contents[filename], root / filename) for filename, _ in lists[part]]
        pixels = torch.from_numpy(numpy.concatenate([batch["data"] for batch in batches]))
        labels = [label for batch in batches for label in batch.get("fine_labels", batch.get("labels", []))]
        if pixels.dim() != 2 or pixels.shape[1] != 3 * 32 * 32 or len(pixels) != len(labels):
            raise DataError(f"{root / published.base_folder} has damaged {part} batches: delete it and start again")
        parts[part] = Part(labels=torch.tensor(labels), images=pixels.view(-1, *SHAPE).contiguous())
    classes = _unpickle(contents[meta["filename"]], root / meta["filename"])[meta["key"]]
    return Source(parts=parts, class_names=classes, checksums=checksums)


def _contents(
    published: Any, files: list[Archive], root: Path, download: bool
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Bytes of every file by its name, and the checksums that vouch for them."""
    unpacked = root / published.base_folder
    archive = Archive(published.filename, published.tgz_md5, (published.url,))
    if unpacked.is_dir() and not (root / archive.filename).exists():
        for file in files:
            if not (unpacked / file.filename).exists():
                raise DataError(f"{unpacked} lacks the file {file.filename}: delete the folder and start again")
            check(file, unpacked / file.filename)
        contents = {file.filename: (unpacked / file.filename).read_bytes() for file in files}
        return contents, {file.filename: f"md5:{file.md5}" for file in files}
    [path] = fetch([archive], root, download=download)
    names = {f"{published.base_folder}/{file.filename}": file.filename for file in files}
    try:
        with tarfile.open(path, "r:gz") as tar:
            contents = {names[member.name]: tar.extractfile(member).read() for member in tar if member.name in names}
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): delete it and start again") from error
    if missing := sorted(set(names.values()) - set(contents)):
        raise DataError(f"{path} lacks the file {missing[0]}: delete it and start again")
    return contents, {archive.filename: f"md5:{archive.md5}"}


class _Arrays(pickle.Unpickler):
    """Reads containers, numbers, text and NumPy arrays, and runs nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode") or (
            module.split(".")[0] == "numpy" and name in ("_reconstruct", "ndarray", "dtype")
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no business here")


def _unpickle(content: bytes, path: Path) -> dict[str, Any]:
    """A batch file's dictionary; Python 2 wrote it, hence the encoding."""
    try:
        return _Arrays(io.BytesIO(content), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{path.name} is no CIFAR batch ({error}): delete it and start again") from error
