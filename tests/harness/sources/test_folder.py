"""The user's own folders of images: all of them are used, as the user split them, or what is left out is named."""

import io
import os
from types import SimpleNamespace

import pytest
import torch
from PIL import Image, ImageOps
from raw_data import picture, write_tree

from harness.config.recipe import Augmentation
from harness.data import dataset, images, prepared
from harness.data.prepared import DataError
from harness.sources.prepare import prepare

ORIENTATION = 0x0112
"""EXIF tag: how the camera was held, 1 to 8."""


def read(tmp_path, capsys=None, **section):
    """The prepared folder `mine`, and what was said about it unless `capsys` is None."""
    section = {"source": "imagefolder", "path": "mine", **section}
    prepare("mine", section, root=tmp_path, out=tmp_path / "mine.safetensors")
    stored = prepared.read(tmp_path / "mine.safetensors")
    return stored if capsys is None else (stored, capsys.readouterr().err)


def sizes(stored):
    """Examples of each class in train, val and test."""
    count = len(stored.description.class_names)
    return [torch.bincount(stored.tensors[f"{split}_y"], minlength=count).tolist() for split in prepared.SPLITS]


def move(folder, source, target):
    (folder / target).parent.mkdir(parents=True, exist_ok=True)
    (folder / source).rename(folder / target)


def test_images_in_folders_of_a_class_folder_belong_to_the_class(tmp_path, monkeypatch):
    write_tree(tmp_path / "mine")
    for number in range(5):
        move(tmp_path / "mine", f"class0/{number}.png", f"class0/2019/spring/{number}.png")
    (tmp_path / "mine" / "class1").rename(tmp_path / "elsewhere")
    (tmp_path / "mine" / "class1").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "circle").symlink_to(tmp_path / "elsewhere")
    scandir, opened = os.scandir, []
    monkeypatch.setattr("os.scandir", lambda path: opened.append(path) or scandir(path))
    stored = read(tmp_path)
    assert sizes(stored) == [[7, 7], [1, 1], [2, 2]]
    assert len(opened) <= 8  # mine twice, three of class0, class1 and its circle: once around
    seen = torch.cat([stored.tensors[f"{split}_x"][:, 0, 0, 0] for split in prepared.SPLITS])
    assert sorted(seen.tolist()) == [*range(10), *range(20, 30)]


FORMATS = {
    **dict.fromkeys((".jfif", ".jpe", ".JPG", ".mpo"), "JPEG"),
    **{".pgm": "PPM", ".pnm": "PPM", ".jp2": "JPEG2000", ".avif": "AVIF", ".apng": "PNG", ".dib": "DIB"},
    **{".tga": "TGA", ".qoi": "QOI", ".webp": "WEBP", ".gif": "GIF", ".tif": "TIFF"},
}


def test_files_of_every_ending_are_read(tmp_path):
    write_tree(tmp_path / "mine")
    for ending, kind in FORMATS.items():
        (tmp_path / "mine" / "class1" / f"other{ending}").write_bytes(picture(200, kind=kind))
    stored = read(tmp_path)
    assert sum(map(sum, sizes(stored))) == 20 + len(FORMATS)
    values = torch.cat([stored.tensors[f"{split}_x"].flatten(1).double().mean(1) for split in prepared.SPLITS])
    assert int((values - 200).abs().lt(2).sum()) == len(FORMATS)


def test_what_is_no_image_is_counted_and_named(tmp_path, capsys):
    write_tree(tmp_path / "mine")
    for number in range(5):
        move(tmp_path / "mine", f"class0/{number}.png", f"class0/{number}.heic")
    for name in ("labels.csv", "class0/notes.txt", "class1/notes.txt", "class1/.DS_Store"):
        (tmp_path / "mine" / name).write_text("?")
    (tmp_path / "mine" / "class2").mkdir()
    (tmp_path / "mine" / "preview.png").write_bytes(picture(0))
    stored, said = read(tmp_path, capsys)
    assert sizes(stored) == [[3, 7], [1, 1], [1, 2]]
    assert "dataset 'mine': 10 train, 2 val, 3 test examples of 2 classes\n" in said
    left_out = "5 .heic (class0); 2 .txt (class0, class1); 1 .csv (.); 1 .png (.); 1 empty (class2)"
    assert said.endswith(f"dataset 'mine' leaves out, of {tmp_path / 'mine'}: {left_out}\n")


def test_a_class_without_a_readable_image_is_a_sentence(tmp_path):
    write_tree(tmp_path / "mine")
    for number in range(10):
        move(tmp_path / "mine", f"class0/{number}.png", f"class0/{number}.heic")
    with pytest.raises(DataError, match=r"mine/class0 holds 10 \.heic and no image that can be read: convert them"):
        read(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "valid", "test"),
        ("Train", "Validation", "Test"),
        ("training", "dev", "testing"),
        ("TRAIN", "val", "TEST"),
        ("training_set", "validation set", "test_set"),
    ],
)
def test_the_splits_of_the_user_are_used_whatever_they_are_called(tmp_path, capsys, names):
    for name, count in zip(names, (10, 6, 4), strict=True):
        write_tree(tmp_path / "mine" / name, images=count)
    write_tree(tmp_path / "mine" / "spare", images=3)
    stored, said = read(tmp_path, capsys)
    assert sizes(stored) == [[10, 10], [6, 6], [4, 4]]
    assert said.endswith("'spare' beside the splits\n")


def test_a_class_called_train_is_a_class(tmp_path):
    write_tree(tmp_path / "mine", classes=3)
    for number, name in enumerate(("bus", "car", "train")):
        move(tmp_path / "mine", f"class{number}", name)
    assert read(tmp_path).description.class_names == ["bus", "car", "train"]


def tree(folder, *places):
    for place in places:
        write_tree(folder / place)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        (("train", "valid"), r"mine has no folder 'test': add it, rename 'valid' if that is it, or end the dataset's"),
        (("train", "spare"), r"mine has no folder 'test': add it, or end the dataset's 'path' with 'train' to have"),
        (("train", "Train", "test"), r"mine has 'Train' and 'train', both of them 'train': join them"),
        (("validation", "test"), r"mine has test and validation but no folder 'train': add it"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), r"mine/(cat|dog) has splits inside a class: put the"),
        (("archive",), r"\(if they lie in 'archive', end the dataset's 'path' with it\)"),
    ],
)
def test_a_layout_that_is_not_clear_is_a_sentence(tmp_path, places, sentence):
    tree(tmp_path / "mine", *places)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)


def test_images_of_a_split_without_class_folders_are_no_classes(tmp_path):
    for split in ("train", "test"):
        write_tree(tmp_path / split)
        move(tmp_path, f"{split}/class0", f"mine/{split}")
    with pytest.raises(DataError, match=r"mine/train has fewer than two class folders"):
        read(tmp_path)


def test_a_folder_that_cannot_be_read_is_a_sentence(tmp_path, monkeypatch):
    write_tree(tmp_path / "mine")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("class1"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(DataError, match=r"class1 cannot be read \(Permission denied\): make it readable"):
        read(tmp_path)


def test_a_rare_class_is_in_every_split_or_named(tmp_path, capsys):
    for label, count in (("common", 50), ("rare", 3), ("rarest", 2), ("single", 1), ("usual", 30)):
        write_tree(tmp_path / "made", classes=1, images=count)
        move(tmp_path, "made/class0", f"mine/{label}")
    stored, said = read(tmp_path, capsys)
    train, val, test = sizes(stored)
    assert (train[1:4], val[1:4], test[1:4]) == ([1, 1, 1], [1, 0, 0], [1, 1, 0])
    assert sum(test) == 17 and sum(val) == 9  # a fifth and a tenth of 86
    assert "dataset 'mine' has no val example of 2 classes, having too few: rarest, single\n" in said
    assert "dataset 'mine' has no test example of 1 classes, having too few: single\n" in said


def photo(kind, orientation):
    """A file of 16 x 8 pixels, each corner of its own brightness, taken with the camera held so."""
    small = Image.frombytes("L", (2, 2), bytes([0, 80, 160, 240])).resize((16, 8), Image.Resampling.NEAREST)
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    small.convert("RGB").save(buffer, kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {}))
    return buffer.getvalue()


def corners(pixels):
    """Brightness of top left, top right, bottom left and bottom right, rounded to tens."""
    return [round(int(pixels[0, y, x]) / 80) * 80 for y in (0, -1) for x in (0, -1)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_stands_upright(tmp_path, kind, orientation):
    path = tmp_path / "photo"
    path.write_bytes(photo(kind, orientation))
    upright = images.decode(path, size=None, upright=True)
    assert upright.shape == ((3, 8, 16) if orientation < 5 else (3, 16, 8))
    turned = {
        **{1: [0, 80, 160, 240], 2: [80, 0, 240, 160], 3: [240, 160, 80, 0], 4: [160, 240, 0, 80]},
        **{5: [0, 160, 80, 240], 6: [160, 0, 240, 80], 7: [240, 80, 160, 0], 8: [80, 240, 0, 160]},
    }
    assert corners(upright) == turned[orientation]
    with Image.open(path) as shown:
        assert ImageOps.exif_transpose(shown).size == upright.shape[:0:-1]


def test_own_photos_are_turned_in_memory_and_streamed_and_published_ones_are_not(tmp_path, monkeypatch):
    for split in ("train", "val", "test"):
        for label in ("class0", "class1"):
            for root in ("mine", "imagenet"):
                folder = tmp_path / root / split / label
                folder.mkdir(parents=True)
                for number in range(10):
                    (folder / f"{number}.jpg").write_bytes(photo("JPEG", 6))
    assert corners(read(tmp_path, image_size=8).tensors["train_x"][0]) == [160, 0, 240, 80]
    section = {"source": "imagenet", "image_size": 8, "num_classes": 2}
    prepare("imagenet", section, root=tmp_path, out=tmp_path / "imagenet.safetensors")
    assert corners(prepared.read(tmp_path / "imagenet.safetensors").tensors["train_x"][0]) != [160, 0, 240, 80]
    monkeypatch.setattr("harness.sources.store.DECODED_BYTES", 100)
    stored = read(tmp_path, image_size=8, normalize="none")
    assert "train_x" not in stored.tensors
    recipe = SimpleNamespace(batch_size=4, eval_batch_size=4, threads=1, augment=Augmentation())
    x, _ = next(dataset.load(tmp_path / "mine.safetensors", recipe=recipe, device="cpu", seed=0).train.epoch(0))
    assert corners((x[0] * 255).round()) == [160, 0, 240, 80]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"MM\0*\0\0\0\x08\0\x01", b"MM\0*\xff", b"Exif", b"?M\0*\0\0\0\x08\0\0"])
def test_a_damaged_exif_block_leaves_the_picture_as_it_is(tmp_path, exif):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), 7).save(buffer, "WEBP", exif=exif)
    (tmp_path / "photo").write_bytes(buffer.getvalue())
    assert images.decode(tmp_path / "photo", size=None, upright=True).shape == (3, 8, 16)
