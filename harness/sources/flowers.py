"""Oxford Flowers-102 (Nilsback & Zisserman 2008): JPEG files, their labels and the official splits as MATLAB files."""

from __future__ import annotations

import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.prepared import DataError
from harness.machine.files import advice, sweep, sync_folder
from harness.sources import Part, Source
from harness.sources.download import Archive, fetch

HOLDOUT = 10
"""Images per class that the authors of EDropout take for validation and for test; all others train."""
OFFICIAL = {"train": "trnid", "val": "valid", "test": "tstid"}


def read(root: Path, *, split: str, download: bool) -> Source:
    """Read `root`/flowers-102, unpacking the archive of images on first use.

    Args:
        root: The raw data's root.
        split: "authors" (10 of each class for validation and 10 for test) or "official" (1020, 1020 and 6149).
        download: Fetch what is missing.

    Raises:
        DataError: a file is missing or is not the published one, or `split` is neither.
    """
    if split not in ("authors", "official"):
        raise DataError(f"config key 'split' is '{split}': choose authors or official")
    from torchvision.datasets import Flowers102

    folder = root / "flowers-102"
    published = {
        key: Archive(filename, md5, (Flowers102._download_url_prefix + filename,))
        for key, (filename, md5) in Flowers102._file_dict.items()
    }
    sweep(folder / "jpg")
    keys = ["label", "setid"] if (folder / "jpg").is_dir() else ["label", "setid", "image"]
    labels_path, splits_path, *packed = fetch([published[key] for key in keys], folder, download=download)
    if packed:
        _unpack(packed[0], folder / "jpg")
    labels = _vector(labels_path, "labels") - 1
    files = [f"jpg/image_{number:05d}.jpg" for number in range(1, len(labels) + 1)]
    everything = Part(labels=labels, files=files)
    checksums = {archive.filename: f"md5:{archive.md5}" for archive in published.values()}
    if split == "authors":
        parts, holdout = {"all": everything}, HOLDOUT
    else:
        parts, holdout = {part: _listed(everything, splits_path, key) for part, key in OFFICIAL.items()}, None
    return Source(
        parts=parts,
        class_names=list(Flowers102.classes),
        checksums=checksums,
        root=folder,
        holdout=holdout,
    )


def _listed(everything: Part, path: Path, key: str) -> Part:
    chosen = torch.zeros(len(everything), dtype=torch.bool)
    numbers = _vector(path, key)
    if int(numbers.min()) < 1 or int(numbers.max()) > len(everything):
        raise DataError(f"{path} lists images that the label file does not have: delete both and start again")
    chosen[numbers - 1] = True
    return everything.where(chosen)


def _vector(path: Path, key: str) -> Tensor:
    """The vector `key` of a MATLAB file as int64."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        value: Any = loadmat(path)[key]
    except (MatReadError, KeyError, ValueError, TypeError, OSError, zlib.error) as error:
        raise DataError(f"{path} is no MATLAB file with '{key}' ({error}): delete it and start again") from error
    return torch.from_numpy(value.astype("int64")).flatten()


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack the images of `archive` so that `folder` appears only once it is whole; another process may be faster."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(temporary, filter="data")
            try:
                Path(temporary, folder.name).rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        sync_folder(folder.parent)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive} is truncated or damaged ({error}): delete it and start again") from error
    except OSError as error:
        raise DataError(f"{archive} cannot be unpacked ({error}): {advice(error)}") from error
