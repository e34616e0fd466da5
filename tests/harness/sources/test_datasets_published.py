"""The published datasets: tiny files in their true formats, their checksums."""

import gzip
import hashlib
import pickle
import resource
import tarfile
from types import SimpleNamespace

import numpy
import pytest
import torch
from raw_data import idx, md5, numbered, pack, picture, write_cifar, write_idx
from scipy.io import savemat
from torchvision import datasets

from harness.config.recipe import Augmentation
from harness.data import dataset, prepared
from harness.data.prepared import DataError
from harness.sources import flowers
from harness.sources import idx as idx_source
from harness.sources.prepare import prepare

RELATIVES = {"mnist": datasets.MNIST, "kuzushiji": datasets.KMNIST, "fashion": datasets.FashionMNIST}


def stored(tmp_path, source, **section):
    out = tmp_path / "out" / "data.safetensors"
    prepare(source, {"source": source, **section}, root=tmp_path, out=out)
    return prepared.read(out)


def sentence(tmp_path, source, match, **section):
    """The one-line error of preparing `source`; nothing may be left behind."""
    with pytest.raises(DataError, match=match) as caught:
        stored(tmp_path, source, **section)
    assert "\n" not in str(caught.value) and not (tmp_path / "out" / "data.safetensors").exists()
    return str(caught.value)


@pytest.mark.parametrize("source", RELATIVES)
def test_idx_files_are_read_and_split_ninety_to_ten(tmp_path, monkeypatch, source):
    write_idx(tmp_path, monkeypatch, RELATIVES[source])
    tensors = stored(tmp_path, source).tensors
    assert [len(tensors[f"{split}_y"]) for split in prepared.SPLITS] == [90, 10, 20]
    both = torch.cat([tensors["train_x"], tensors["val_x"]])
    assert both.shape == (100, 1, 28, 28) and sorted(both[:, 0, 5, 5].tolist()) == list(range(100))
    for split in prepared.SPLITS:
        assert torch.equal(tensors[f"{split}_x"][:, 0, 0, 0] % 10, tensors[f"{split}_y"])


def test_test_images_of_another_dataset_are_stored_beside_as_outliers(tmp_path, monkeypatch):
    write_idx(tmp_path, monkeypatch, datasets.MNIST)
    write_idx(tmp_path, monkeypatch, datasets.FashionMNIST, test=30)
    tensors = stored(tmp_path, "mnist", outliers="fashion").tensors
    assert tensors["outliers_x"].shape == (30, 1, 28, 28) and len(tensors["test_y"]) == 20
    recipe = SimpleNamespace(batch_size=8, eval_batch_size=7, augment=Augmentation(), threads=1)
    data = dataset.load(tmp_path / "out" / "data.safetensors", recipe=recipe, device="cpu", seed=1)
    assert sum(len(x) for x, _ in data.outliers) == 30
    write_cifar(tmp_path, monkeypatch)
    with pytest.raises(
        DataError, match=r"outliers' names images of 3 x 32 x 32 and those of the dataset .* 1 x 28 x 28"
    ):
        stored(tmp_path, "mnist", outliers="cifar10")


@pytest.mark.parametrize("source", ["mnist", "fashion"])
@pytest.mark.parametrize("again", [False, True], ids=["unpacked", "packed anew"])
def test_another_packing_is_accepted_by_the_checksum_of_its_content(tmp_path, monkeypatch, source, again):
    folder = write_idx(tmp_path, monkeypatch, RELATIVES[source])
    known = {}
    for path in sorted(folder.iterdir()):
        content = gzip.decompress(path.read_bytes())
        path.unlink()
        plain = path.with_suffix("")
        (path if again else plain).write_bytes(gzip.compress(content, 1) if again else content)
        known[plain.name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(idx_source, "UNPACKED_MD5", {source: known})
    assert stored(tmp_path, source).tensors["test_x"].shape == (20, 1, 28, 28)
    (path if again else plain).write_bytes(gzip.compress(content[:-1]) if again else content[:-1])
    (tmp_path / "out" / "data.safetensors").unlink()
    expected = "is not the published file" if again else "missing and downloading is off"
    assert path.name in sentence(tmp_path, source, expected)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_archive_is_refused_by_its_published_checksum(tmp_path, monkeypatch, damage):
    path = write_idx(tmp_path, monkeypatch) / "train-images-idx3-ubyte.gz"
    content, checksum = path.read_bytes(), md5(path)
    path.write_bytes(content[:-20] if damage == "cut" else content[:-1] + b"x")
    if damage == "gone":
        path.unlink()
    text = sentence(tmp_path, "fashion", "missing and downloading is off" if damage == "gone" else "not the published")
    assert checksum in text and str(path.parent) in text and path.name in text


@pytest.mark.parametrize("source", ["mnist", "fashion"])
def test_every_missing_archive_is_named_at_once(tmp_path, monkeypatch, source):
    for path in write_idx(tmp_path, monkeypatch, RELATIVES[source]).iterdir():
        path.unlink()
    text = sentence(tmp_path, source, "missing and downloading is off")
    assert all(name in text and checksum in text for name, checksum in RELATIVES[source].resources)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"PNG and more", "no IDX file"),
        (b"", "no IDX file"),
        (idx(numbered(100, 28, 28))[:-1], "says"),
        (idx(numpy.zeros(100)), "do not belong together"),
        (idx(numbered(99, 28, 28)), "do not belong together"),
    ],
)
def test_what_is_no_idx_file_is_refused_whatever_its_checksum(tmp_path, monkeypatch, content, match):
    path = write_idx(tmp_path, monkeypatch) / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    resources = [(path.name, md5(path)), *datasets.FashionMNIST.resources[1:]]
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    sentence(tmp_path, "fashion", match)


@pytest.mark.parametrize(
    ("classes", "match"), [(1, "one class only"), (9, "examples of 9 classes"), (11, "the label 10")]
)
def test_a_wrong_number_of_classes_is_refused(tmp_path, monkeypatch, classes, match):
    write_idx(tmp_path, monkeypatch, classes=classes)
    sentence(tmp_path, "fashion", match)


@pytest.mark.parametrize(("source", "published"), [("cifar10", datasets.CIFAR10), ("cifar100", datasets.CIFAR100)])
@pytest.mark.parametrize("packed", [True, False])
def test_cifar_is_read_from_the_archive_or_its_folder(tmp_path, monkeypatch, source, published, packed):
    folder = write_cifar(tmp_path, monkeypatch, published, per_batch=40 if source == "cifar10" else 200)
    if packed:
        pack(folder, tmp_path / published.filename)
        monkeypatch.setattr(published, "tgz_md5", md5(tmp_path / published.filename))
        folder.rename(tmp_path / "removed")
    result = stored(tmp_path, source)
    tensors, classes = result.tensors, len(result.description.class_names)
    sizes = [180, 20, 40] if source == "cifar10" else [180, 20, 200]
    assert [len(tensors[f"{split}_y"]) for split in prepared.SPLITS] == sizes
    assert torch.equal(tensors["test_x"][:, 2, 31, 31] % classes, tensors["test_y"])
    assert result.description.shape == (3, 32, 32) and result.description.class_names[1] == "class1"


def test_a_changed_cifar_batch_is_refused(tmp_path, monkeypatch):
    path = write_cifar(tmp_path, monkeypatch) / "data_batch_3"
    path.write_bytes(path.read_bytes() + b"x")
    sentence(tmp_path, "cifar10", "data_batch_3 is not the published file")
    path.unlink()
    sentence(tmp_path, "cifar10", "lacks the file data_batch_3")


def test_a_cifar_batch_runs_no_code(tmp_path, monkeypatch):
    path = write_cifar(tmp_path, monkeypatch) / "data_batch_1"

    class Attack:
        def __reduce__(self):
            return open, (str(tmp_path / "attacked"), "w")

    path.write_bytes(pickle.dumps({"data": Attack()}, protocol=2))
    batches = [["data_batch_1", md5(path)], *datasets.CIFAR10.train_list[1:]]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", batches)
    sentence(tmp_path, "cifar10", "data_batch_1 is no CIFAR batch")
    assert not (tmp_path / "attacked").exists()


def write_flowers(root, monkeypatch, *, per_class=25):
    """102 classes as JPEG files in their archive, labels and splits as MATLAB files."""
    folder = root / "flowers-102"
    jpg = folder / "jpg"
    jpg.mkdir(parents=True)
    image = picture(100, (12, 9), "JPEG")
    count = 102 * per_class
    for number in range(1, count + 1):
        (jpg / f"image_{number:05d}.jpg").write_bytes(image)
    numbers = numpy.arange(1, count + 1)
    savemat(folder / "imagelabels.mat", {"labels": (numbers - 1)[None] % 102 + 1})
    blocks = {"trnid": numbers[:1020], "valid": numbers[1020:2040], "tstid": numbers[2040:]}
    savemat(folder / "setid.mat", {key: value[None] for key, value in blocks.items()})
    pack(jpg, folder / "102flowers.tgz")
    for path in jpg.iterdir():
        path.unlink()
    jpg.rmdir()
    files = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
    published = {key: (name, md5(folder / name)) for key, name in files.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", published)
    return folder


def test_flowers_are_split_as_the_authors_or_as_the_publishers_do(tmp_path, monkeypatch):
    folder = write_flowers(tmp_path, monkeypatch)
    tensors = stored(tmp_path, "flowers", image_size=8).tensors
    assert torch.bincount(tensors["val_y"]).tolist() == [10] * 102
    assert torch.bincount(tensors["test_y"]).tolist() == [10] * 102
    assert torch.bincount(tensors["train_y"]).tolist() == [5] * 102
    assert tensors["train_x"].shape == (510, 3, 8, 8)
    tensors = stored(tmp_path, "flowers", image_size=8, split="official").tensors
    assert [len(tensors[f"{split}_y"]) for split in prepared.SPLITS] == [1020, 1020, 510]
    assert sorted(path.name for path in folder.iterdir()) == ["102flowers.tgz", "imagelabels.mat", "jpg", "setid.mat"]


def test_damaged_flowers_are_refused(tmp_path, monkeypatch):
    folder = write_flowers(tmp_path, monkeypatch, per_class=21)
    (folder / "setid.mat").write_bytes((folder / "setid.mat").read_bytes()[:-9])
    sentence(tmp_path, "flowers", "setid.mat is not the published file", image_size=8)
    sentence(tmp_path, "flowers", "'split' is 'mine'", split="mine")


def test_every_missing_file_of_flowers_is_named_at_once(tmp_path, monkeypatch):
    for path in write_flowers(tmp_path, monkeypatch, per_class=21).iterdir():
        path.unlink()
    text = sentence(tmp_path, "flowers", "missing and downloading is off", image_size=8)
    assert all(name in text for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat"))


def test_flowers_whose_unpacking_fails_leave_no_folder(tmp_path):
    archive = tmp_path / "102flowers.tgz"
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg" / "image_00001.jpg").write_bytes(bytes(numpy.random.RandomState(0).bytes(100_000)))
    pack(tmp_path / "jpg", archive)
    archive.write_bytes(archive.read_bytes()[:50_000])
    with pytest.raises(DataError, match="truncated or damaged"):
        flowers._unpack(archive, tmp_path / "new" / "jpg")
    assert list((tmp_path / "new").iterdir()) == []


def test_processes_that_unpack_the_same_archive_at_once_do_not_meet(tmp_path, monkeypatch):
    archive = tmp_path / "102flowers.tgz"
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg" / "image_00001.jpg").write_bytes(bytes(1000))
    pack(tmp_path / "jpg", archive)
    folder, extract = tmp_path / "new" / "jpg", tarfile.TarFile.extractall

    def overtaken(tar, *arguments, **options):
        extract(tar, *arguments, **options)
        monkeypatch.setattr(tarfile.TarFile, "extractall", extract)
        flowers._unpack(archive, folder)

    monkeypatch.setattr(tarfile.TarFile, "extractall", overtaken)
    flowers._unpack(archive, folder)
    assert list(folder.parent.iterdir()) == [folder] and len(list(folder.iterdir())) == 1


def test_a_disk_that_fills_up_while_unpacking_leaves_no_folder(tmp_path):
    archive = tmp_path / "102flowers.tgz"
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg" / "image_00001.jpg").write_bytes(bytes(100_000))
    pack(tmp_path / "jpg", archive)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(DataError, match="free some disk space"):
            flowers._unpack(archive, tmp_path / "new" / "jpg")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "new").iterdir()) == []
