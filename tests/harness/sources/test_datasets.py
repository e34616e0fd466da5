"""Preparing datasets: splits, what is stored, and what is refused; small files in the true formats."""

import errno
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from raw_data import picture, write_tree

from harness.data import prepared
from harness.data.prepared import DataError
from harness.machine.files import advice
from harness.sources import flowers
from harness.sources.prepare import prepare
from harness.sources.splits import stratified

ROOT = Path(__file__).resolve().parents[3]


def prepared_digits(tmp_path, **section):
    prepare("digits", {"source": "digits", **section}, root=tmp_path, out=tmp_path / "digits.safetensors")
    return prepared.read(tmp_path / "digits.safetensors")


def prepare_folder(tmp_path, **section):
    section = {"source": "imagefolder", "path": "mine", **section}
    prepare("mine", section, root=tmp_path, out=tmp_path / "mine.safetensors")
    return prepared.read(tmp_path / "mine.safetensors")


def test_digits_are_split_seventy_ten_twenty_with_all_classes_alike(tmp_path):
    tensors = prepared_digits(tmp_path).tensors
    assert [len(tensors[f"{split}_y"]) for split in prepared.SPLITS] == [1258, 180, 359]
    assert sum(len(tensors[f"{split}_x"]) for split in prepared.SPLITS) == 1797
    for split, low, high in (("train", 121, 129), ("val", 17, 19), ("test", 34, 37)):
        counts = torch.bincount(tensors[f"{split}_y"], minlength=10)
        assert low <= counts.min() and counts.max() <= high
    assert tensors["train_x"].shape[1:] == (1, 8, 8) and tensors["train_x"].max() == 255


def test_the_split_seed_alone_decides_the_split(tmp_path):
    first, again, other = (prepared_digits(tmp_path, split_seed=seed) for seed in (0, 0, 1))
    assert first.checksum == again.checksum
    assert not torch.equal(first.tensors["test_x"], other.tensors["test_x"])


def test_subsets_are_taken_from_the_published_parts(tmp_path):
    tensors = prepared_digits(tmp_path, train_examples=100, val_examples=20, test_examples=30).tensors
    assert torch.bincount(tensors["train_y"]).tolist() == [10] * 10
    whole = prepared_digits(tmp_path).tensors
    for split, count in (("train", 100), ("val", 20), ("test", 30)):
        known = {image.numpy().tobytes() for image in whole[f"{split}_x"]}
        assert len(tensors[f"{split}_x"]) == count
        assert all(image.numpy().tobytes() in known for image in tensors[f"{split}_x"])


def test_stratified_choice_rounds_by_the_largest_remainder():
    labels = torch.tensor([0] * 12 + [1] * 6 + [2] * 2)
    chosen = stratified(labels, 5, seed=0, key="k")  # 3, 1.5 and 0.5: the tie goes to the lower class
    assert torch.bincount(labels[chosen]).tolist() == [3, 1, 1]  # ... which would leave the third with none
    chosen = stratified(labels, 10, seed=0, key="k")  # 6, 3 and 1
    assert torch.bincount(labels[chosen]).tolist() == [6, 3, 1]
    chosen = stratified(labels, 14, seed=0, key="k")  # 8.4, 4.2 and 1.4: the largest remainder is the first
    assert torch.bincount(labels[chosen]).tolist() == [9, 4, 1]


def test_a_class_gives_what_it_can_and_keeps_what_it_must():
    labels = torch.tensor([0] * 50 + [1] * 9 + [2] * 2 + [3])
    for count, expected in ((12, [9, 2, 1, 0]), (2, [2, 0, 0, 0]), (60, [49, 8, 1, 0])):
        chosen = stratified(labels, count, seed=0, key="k", leave=1)
        assert torch.bincount(labels[chosen], minlength=4).tolist() == expected


def test_too_large_a_subset_names_the_key(tmp_path):
    with pytest.raises(DataError, match=r"'datasets.digits.val_examples' asks for 181 examples and there are 180"):
        prepared_digits(tmp_path, val_examples=181)


def test_unknown_keys_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"'datasets.digits.sise' is unknown"):
        prepared_digits(tmp_path, sise=3)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "remove"])
def test_a_damaged_prepared_file_is_never_used(tmp_path, damage):
    prepared_digits(tmp_path)
    path = tmp_path / "digits.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    match damage:
        case "truncate":
            path.write_bytes(path.read_bytes()[:-1000])
        case "flip":
            path.write_bytes(content)
        case "empty":
            path.write_bytes(b"")
        case "remove":
            path.unlink()
    with pytest.raises(DataError, match=r"digits.safetensors") as caught:
        prepared.read(path)
    assert "\n" not in str(caught.value)


def run_main(tmp_path, section, **options):
    """The finished process that prepares the dataset `mine`."""
    out = tmp_path / "out" / "mine"
    arguments = ["--name", "mine", "--data", json.dumps(section), "--root", tmp_path, "--out", out]
    command = [sys.executable, "-m", "harness.sources.prepare", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **options)


def test_a_folder_in_the_place_of_an_archive_is_a_sentence(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    folder.mkdir(parents=True)
    answer = run_main(tmp_path, {"source": "fashion"})
    assert answer.returncode == 1 and str(folder) in answer.stderr and answer.stderr.count("\n") == 1


def test_a_file_name_that_is_not_utf8_is_a_sentence(tmp_path):
    write_tree(tmp_path / "mine")
    (tmp_path / "mine" / "class1" / "3.png").rename(tmp_path / "mine" / "class1" / os.fsdecode(b"caf\xe9.png"))
    sizes = {"image_size": 4, "image_size_by_model": {"alexnet": 8}}
    answer = run_main(tmp_path, {"source": "imagefolder", "path": "mine", **sizes})
    assert answer.returncode == 1 and answer.stderr.count("\n") == 1
    assert r"not UTF-8 and starts with 'class1/caf\udce9': rename it" in answer.stderr


def test_every_damaged_byte_of_a_header_is_a_sentence_or_carries_nothing(tmp_path):
    path = tmp_path / "small.safetensors"
    description = prepared.Description("small", ["a", "b"], (1, 2, 2), [0.5], [0.2], {"source": "digits"}, 0, {})
    prepared.write(path, description, {"train_x": torch.zeros(2, 1, 2, 2), "train_y": torch.arange(2)})
    whole, content = prepared.read(path), path.read_bytes()
    for position in range(8 + int.from_bytes(content[:8], "little")):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                stored = prepared.read(path)
            except DataError as error:
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                assert stored.description == description and stored.checksum == whole.checksum


def test_a_wrong_number_of_classes_is_named(tmp_path):
    with pytest.raises(DataError, match=r"has 10 classes, config key 'datasets\.digits\.num_classes' says 3"):
        prepared_digits(tmp_path, num_classes=3)
    assert not list(tmp_path.iterdir())
    prepared_digits(tmp_path, num_classes=10)


def test_a_place_that_cannot_be_written_is_not_called_full(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="Not a directory") as caught:
        (tmp_path / "file" / "out").mkdir()
    assert "space" not in advice(caught.value)
    assert "free some disk space" in advice(OSError(errno.ENOSPC, "No space left on device"))


def test_what_a_killed_preparation_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / ".digits.safetensors.1.tmp"
    left.touch()
    os.utime(left, (0, 0))
    prepared_digits(tmp_path)
    assert not left.exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path):
    answer = run_main(
        tmp_path,
        {"source": "digits"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # Byte code must not be cut at the limit.
    )
    assert answer.returncode == 1 and "free some disk space" in answer.stderr and "Traceback" not in answer.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_of_images_keeps_its_published_test_set(tmp_path):
    write_tree(tmp_path / "mine" / "train", images=10)
    write_tree(tmp_path / "mine" / "test", images=2)
    stored = prepare_folder(tmp_path, val_fraction=0.2)
    assert stored.description.class_names == ["class0", "class1"] and stored.description.shape == (3, 8, 8)
    assert stored.tensors["test_x"][:, 0, 0, 0].tolist() == [0, 1, 20, 21]
    assert stored.tensors["test_y"].tolist() == [0, 0, 1, 1]
    both = torch.cat([stored.tensors["train_x"], stored.tensors["val_x"]])[:, 0, 0, 0]
    assert sorted(both.tolist()) == [*range(10), *range(20, 30)]
    assert torch.bincount(stored.tensors["val_y"]).tolist() == [2, 2]


def test_a_flat_folder_of_classes_is_split_in_three(tmp_path):
    write_tree(tmp_path / "mine", images=10)
    tensors = prepare_folder(tmp_path).tensors
    assert [torch.bincount(tensors[f"{split}_y"]).tolist() for split in prepared.SPLITS] == [[7, 7], [1, 1], [2, 2]]


def test_statistics_of_the_training_set_are_stored(tmp_path):
    write_tree(tmp_path / "mine", images=10)
    stored = prepare_folder(tmp_path)
    pixels = stored.tensors["train_x"].double() / 255
    assert stored.description.mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert stored.description.std == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())
    assert prepare_folder(tmp_path, normalize="none").description.std == [1.0, 1.0, 1.0]
    assert prepare_folder(tmp_path, normalize="imagenet").description.mean == [0.485, 0.456, 0.406]


def test_grey_images_have_no_statistics_of_imagenet(tmp_path):
    with pytest.raises(DataError, match=r"'datasets.digits.normalize' is 'imagenet', which images of 1 channels"):
        prepared_digits(tmp_path, normalize="imagenet")


def test_larger_images_are_resized_and_cut_to_a_square(tmp_path):
    write_tree(tmp_path / "mine", images=10, size=(40, 20))
    assert prepare_folder(tmp_path, image_size=10).description.shape == (3, 10, 10)


def break_folder(folder, fault):
    match fault:
        case "unreadable":
            (folder / "train" / "class1" / "3.png").write_bytes(picture(1, kind="JPEG")[:-100])
        case "no image":
            (folder / "train" / "class1" / "3.png").write_text("hello")
        case "depth" | "fraction":
            grey = Image.new("I;16" if fault == "depth" else "F", (8, 8), 300)
            grey.save(folder / "train" / "class1" / "3.png", "TIFF")
        case "size":
            (folder / "train" / "class1" / "3.png").write_bytes(picture(1, (9, 8)))
        case "extra class":
            (folder / "test" / "class2").mkdir()
            (folder / "test" / "class2" / "0.png").write_bytes(picture(1))
        case "one class":
            for part in ("train", "test"):
                (folder / part / "class1").rename(folder.parent / f"{part} removed")
        case "no test":
            (folder / "test").rename(folder.parent / "removed")
        case "no train":
            (folder / "train").rename(folder.parent / "removed")
        case "nothing":
            folder.rename(folder.parent / "removed")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("unreadable", r"class1/3.png is no readable image"),
        ("no image", r"class1/3.png is no image in a known format"),
        ("depth", r"class1/3.png has grey values of more than 8 bits: convert such images to 8 bits"),
        ("fraction", r"class1/3.png has grey values of more than 8 bits: convert such images to 8 bits"),
        ("size", r"class1/3.png has 9 x 8 pixels and others 8 x 8: set config key 'datasets.mine.image_size'"),
        ("extra class", r"differ in the class folder 'class2'"),
        ("one class", r"has fewer than two class folders with images"),
        ("no test", r"has no folder 'test'"),
        ("no train", r"has test but no folder 'train'"),
        ("nothing", r"mine is missing"),
    ],
)
def test_a_faulty_folder_is_one_sentence_and_leaves_nothing(tmp_path, fault, sentence):
    for part in ("train", "test"):
        write_tree(tmp_path / "mine" / part)
    break_folder(tmp_path / "mine", fault)
    with pytest.raises(DataError, match=sentence) as caught:
        prepare_folder(tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "mine.safetensors").exists()


def test_a_truncated_file_among_those_that_stay_files_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.sources.store.DECODED_BYTES", 1000)
    monkeypatch.setattr("harness.sources.store.STATISTICS_EXAMPLES", 1)
    write_tree(tmp_path / "mine")
    path = tmp_path / "mine" / "class1" / "3.png"
    photo = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(photo, "JPEG")
    for size, fault in ((None, None), (-200, "is no readable image")):
        path.write_bytes(photo.getvalue()[:size])
        if fault is None:
            prepare_folder(tmp_path, image_size=8)
            (tmp_path / "mine.safetensors").unlink()
        else:
            with pytest.raises(DataError, match=rf"class1/3.png {fault}"):
                prepare_folder(tmp_path, image_size=8)
            assert not (tmp_path / "mine.safetensors").exists()


def test_the_number_of_classes_can_be_demanded(tmp_path):
    write_tree(tmp_path / "mine")
    with pytest.raises(DataError, match="has 2 classes and must have 3"):
        prepare_folder(tmp_path, num_classes=3)


def test_a_folder_without_path_names_the_key(tmp_path):
    with pytest.raises(DataError, match=r"'datasets.mine.path' is missing"):
        prepare("mine", {"source": "imagefolder"}, root=tmp_path, out=tmp_path / "out")


def test_imagenet_is_a_tree_of_a_thousand_classes(tmp_path):
    section, out = {"source": "imagenet", "image_size": 8}, tmp_path / "imagenet.safetensors"
    with pytest.raises(DataError, match="must hold ImageNet"):
        prepare("imagenet", section, root=tmp_path, out=out)
    for part in ("train", "val"):
        write_tree(tmp_path / "imagenet" / part, classes=3)
    with pytest.raises(DataError, match="has 3 classes and must have 1000"):
        prepare("imagenet", section, root=tmp_path, out=out)
    prepare("imagenet", {**section, "num_classes": 3}, root=tmp_path, out=out)
    stored = prepared.read(out)
    assert [len(stored.tensors[f"{split}_y"]) for split in prepared.SPLITS] == [27, 3, 30]
    assert stored.description.mean == [0.485, 0.456, 0.406] and stored.description.crop_fraction == 0.875


@pytest.mark.parametrize("section", [{"image_size": 8}, {"image_size": 4, "image_size_by_model": {"alexnet": 8}}])
def test_images_that_do_not_fit_stay_files(tmp_path, monkeypatch, section):
    if len(section) == 1:
        monkeypatch.setattr("harness.sources.store.DECODED_BYTES", 1000)
    write_tree(tmp_path / "mine")
    stored = prepare_folder(tmp_path, **section)
    files = prepared.unpack_paths(stored.tensors["val_files"])
    assert [name.split("/")[0] for name in files] == ["class0", "class1"]
    assert stored.description.root == str(tmp_path / "mine")
    assert ("train_x" in stored.tensors) == (len(section) == 2)


@pytest.mark.parametrize("absolute", [False, True])
def test_an_archive_that_writes_outside_its_folder_is_refused(tmp_path, absolute):
    name = str(tmp_path / "outside") if absolute else "../outside"
    archive = tmp_path / "in" / "flowers.tgz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(DataError, match=r"flowers\.tgz"):
        flowers._unpack(archive, tmp_path / "in" / "jpg")
    assert [path.name for path in tmp_path.rglob("*")] == ["in", "flowers.tgz"]
