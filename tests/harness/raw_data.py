"""Writes tiny datasets in the formats in which the real ones lie on disk."""

import gzip
import hashlib
import io
import pickle
import struct
import tarfile

import numpy
from PIL import Image
from torchvision import datasets

MNIST_FILES = {"train": "train", "t10k": "test"}


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def idx(array):
    """The bytes of an IDX file of unsigned bytes."""
    array = numpy.asarray(array, dtype=numpy.uint8)
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def numbered(count, *shape):
    """Images whose pixels all hold the number of the image."""
    return numpy.broadcast_to(numpy.arange(count, dtype=numpy.uint8).reshape(-1, *[1] * len(shape)), (count, *shape))


def write_idx(root, monkeypatch, published=datasets.FashionMNIST, *, train=100, test=20, classes=10):
    """Four gzipped IDX files, whose checksums count as published; returns their folder."""
    folder = root / published.__name__ / "raw"
    folder.mkdir(parents=True)
    resources = []
    for prefix, count in (("train", train), ("t10k", test)):
        contents = {
            f"{prefix}-images-idx3-ubyte.gz": idx(numbered(count, 28, 28)),
            f"{prefix}-labels-idx1-ubyte.gz": idx(numpy.arange(count) % classes),
        }
        for name, content in contents.items():
            (folder / name).write_bytes(gzip.compress(content))
            resources.append((name, md5(folder / name)))
    monkeypatch.setattr(published, "resources", resources)
    return folder


def write_cifar(root, monkeypatch, published=datasets.CIFAR10, *, per_batch=40):
    """The batches of CIFAR as Python 2 pickled them, in a folder; their checksums count as published."""
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    key = "labels" if published is datasets.CIFAR10 else "fine_labels"
    classes = 10 if published is datasets.CIFAR10 else 100

    def dump(name, content):
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return [name, md5(folder / name)]

    def batch(name):
        data = numpy.ascontiguousarray(numbered(per_batch, 3 * 32 * 32))
        return dump(name, {"data": data, key: [number % classes for number in range(per_batch)]})

    monkeypatch.setattr(published, "train_list", [batch(name) for name, _ in published.train_list])
    monkeypatch.setattr(published, "test_list", [batch(name) for name, _ in published.test_list])
    names = [f"class{number}" for number in range(classes)]
    filename, checksum = dump(published.meta["filename"], {published.meta["key"]: names})
    monkeypatch.setattr(published, "meta", {**published.meta, "filename": filename, "md5": checksum})
    return folder


def pack(folder, archive):
    """A gzipped tar file of `folder`."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)


def picture(value, size=(8, 8), kind="PNG"):
    """An image file of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, value, value)).save(buffer, kind)
    return buffer.getvalue()


def write_tree(folder, *, classes=2, images=10, size=(8, 8)):
    """`folder`/<class>/<number>.png; class c and image i have the colour 20 c + i."""
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(images):
            (folder / f"class{label}" / f"{number}.png").write_bytes(picture(20 * label + number, size))
