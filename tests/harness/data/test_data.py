"""Batches: the seed alone decides order and augmentation, and both can be worked out by hand."""

import os
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy
import pytest
import torch
from PIL import Image
from raw_data import picture, write_tree

from harness.config.recipe import Augmentation
from harness.data import dataset, images, prepared
from harness.data.prepared import DataError, Description
from harness.sources.prepare import prepare

FULL = {"crop": 2, "flip": True, "rotation": 90, "cutout": 3}


def recipe(batch_size=8, **augmentation):
    return SimpleNamespace(batch_size=batch_size, eval_batch_size=7, augment=Augmentation(**augmentation), threads=1)


def numbered(count, channels=1, size=6):
    """Images whose pixels all hold their number plus one, so that black is what was added."""
    return (torch.arange(count, dtype=torch.uint8) + 1)[:, None, None, None].expand(count, channels, size, size)


def write(path, images, *, mean=0.0, std=1.0, classes=4):
    """A prepared dataset whose three splits hold the same images."""
    channels = images.shape[1]
    description = Description(
        name="toy",
        class_names=[f"class{number}" for number in range(classes)],
        shape=tuple(images.shape[1:]),
        mean=[mean] * channels,
        std=[std] * channels,
        section={"source": "digits"},
        split_seed=0,
        sources={},
    )
    labels = torch.arange(len(images)) % classes
    tensors = {f"{split}_x": images.clone() for split in prepared.SPLITS}
    tensors |= {f"{split}_y": labels.clone() for split in prepared.SPLITS}
    prepared.write(path, description, tensors)
    return path


def load(path, *, seed=1, image_size=None, **options):
    return dataset.load(path, recipe=recipe(**options), device="cpu", seed=seed, image_size=image_size)


@pytest.fixture
def toy(tmp_path):
    random = torch.randint(1, 256, (30, 3, 6, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return write(tmp_path / "toy.safetensors", random)


def same(first, second):
    first, second = list(first), list(second)
    return len(first) == len(second) and all(
        torch.equal(x, other_x) and torch.equal(y, other_y)
        for (x, y), (other_x, other_y) in zip(first, second, strict=True)
    )


def test_an_epoch_can_be_entered_at_any_batch_with_the_same_bits(toy):
    whole = list(load(toy, **FULL).train.epoch(3))
    for start in range(len(whole) + 1):
        assert same(load(toy, **FULL).train.epoch(3, start=start), whole[start:])


def test_the_seed_and_the_epoch_alone_decide(toy):
    train = load(toy, **FULL).train
    torch.manual_seed(99)
    assert same(train.epoch(0), load(toy, **FULL).train.epoch(0))
    assert not same(train.epoch(0), train.epoch(1))
    assert not same(train.epoch(0), load(toy, seed=2, **FULL).train.epoch(0))


def test_loading_data_leaves_the_global_generator_alone(toy):
    before = torch.get_rng_state()
    list(load(toy, **FULL).train.epoch(0))
    assert torch.equal(before, torch.get_rng_state())


def test_the_batch_size_does_not_change_what_an_example_gets(toy):
    small, large = (torch.cat([x for x, _ in load(toy, batch_size=size, **FULL).train.epoch(0)]) for size in (6, 15))
    assert torch.equal(small, large)


def test_every_example_comes_once_with_its_label(tmp_path):
    train = load(write(tmp_path / "toy.safetensors", numbered(30))).train
    batches = list(train.epoch(5))
    assert [len(y) for _, y in batches] == [8, 8, 8, 6] and len(train) == 4 and train.num_examples == 30
    numbers = torch.cat([x[:, 0, 0, 0] for x, _ in batches]) * 255 - 1
    assert sorted(numbers.round().tolist()) == list(range(30)) != numbers.round().tolist()
    assert torch.equal(numbers.round().long() % 4, torch.cat([y for _, y in batches]))


def test_a_last_batch_of_one_example_is_left_out(tmp_path):
    train = load(write(tmp_path / "toy.safetensors", numbered(17))).train
    assert [len(y) for _, y in train.epoch(0)] == [8, 8] and len(train) == 2


def test_validation_and_test_come_whole_in_order_and_unaugmented(tmp_path):
    loaded = load(write(tmp_path / "toy.safetensors", numbered(30)), **FULL)
    for split in (loaded.val, loaded.test):
        batches = list(split)
        assert [len(y) for _, y in batches] == [7, 7, 7, 7, 2] and len(split) == 5 and split.num_examples == 30
        x = torch.cat([x for x, _ in batches])
        assert torch.allclose(x, numbered(30) / 255)
        assert same(split, split.batches())


def test_images_come_normalised_in_channels_last(tmp_path):
    loaded = load(write(tmp_path / "toy.safetensors", numbered(30, channels=3), mean=0.5, std=0.25))
    x, _ = next(iter(loaded.val))
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(x[4], torch.full((3, 6, 6), (5 / 255 - 0.5) / 0.25), atol=1e-6)
    assert loaded.input_shape == (3, 6, 6) and loaded.num_classes == 4


def test_each_image_of_a_batch_is_augmented_in_its_own_way(tmp_path):
    image = torch.arange(1, 37, dtype=torch.uint8).view(1, 1, 6, 6).expand(64, 1, 6, 6)
    x, _ = next(load(write(tmp_path / "toy.safetensors", image), batch_size=64, crop=2, flip=True).train.epoch(0))
    assert len({tuple(one.flatten().tolist()) for one in x}) > 30  # of 5 * 5 * 2


def test_images_are_resized_as_pil_does(tmp_path):
    images = torch.randint(0, 256, (8, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loaded = load(write(tmp_path / "toy.safetensors", images), image_size=32)
    x, _ = next(iter(loaded.val))
    expected = Image.fromarray(images[0, 0].numpy()).resize((32, 32), Image.Resampling.BILINEAR)
    assert loaded.input_shape == (1, 32, 32)
    assert abs(x[0, 0].mul(255).round().numpy() - numpy.asarray(expected)).max() <= 1


def test_images_are_resized_the_same_in_many_blocks(tmp_path, monkeypatch):
    images = torch.randint(0, 256, (30, 1, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = write(tmp_path / "toy.safetensors", images)
    at_once = load(path, image_size=32)
    monkeypatch.setattr("harness.data.pixels.BLOCK", 7)
    assert same(load(path, image_size=32).train.epoch(0), at_once.train.epoch(0))


def test_oblong_images_keep_their_shape(tmp_path):
    images = torch.randint(0, 256, (20, 1, 6, 9), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    loaded = load(write(tmp_path / "toy.safetensors", images), **FULL)
    assert next(loaded.train.epoch(0))[0].shape == (8, *loaded.input_shape) == (8, 1, 6, 9)
    assert torch.allclose(next(iter(loaded.val))[0], images[:7] / 255)


def test_large_inputs_are_resized_batch_by_batch(toy):
    loaded = load(toy, image_size=224, crop=1)
    x, _ = next(loaded.train.epoch(0))
    assert x.shape == (8, 3, 224, 224) and loaded.input_shape == (3, 224, 224)
    assert loaded.train.images.shape == (3, 6, 6)


def test_wrong_augmentation_names_its_key(toy):
    with pytest.raises(DataError, match=r"'augment.crop' is 6 for images of 6 x 6 pixels"):
        load(toy, crop=6)


def folder(tmp_path, **section):
    write_tree(tmp_path / "mine", images=20)
    out = tmp_path / "mine.safetensors"
    section = {"source": "imagefolder", "path": "mine", "image_size": 8, **section}
    prepare("mine", section, root=tmp_path, out=out)
    return out


def test_streamed_images_are_those_in_memory(tmp_path, monkeypatch):
    in_memory = load(folder(tmp_path), **FULL)
    monkeypatch.setattr("harness.sources.store.DECODED_BYTES", 1000)
    (tmp_path / "again").mkdir()
    streamed = load(folder(tmp_path / "again"), **FULL)
    assert type(streamed.train.images).__name__ == "Files"
    before = torch.get_rng_state()
    assert same(streamed.train.epoch(2, start=1), in_memory.train.epoch(2, start=1))
    assert same(streamed.test, in_memory.test)
    assert torch.equal(before, torch.get_rng_state())


def test_files_are_read_by_threads_and_by_no_copy_of_the_process(tmp_path, monkeypatch):
    path, names = folder(tmp_path, image_size_by_model={"alexnet": 16}), set()
    read = images.decode

    def watched(*arguments, **options):
        names.add(threading.current_thread().name)
        return read(*arguments, **options)

    monkeypatch.setattr(images, "decode", watched)
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a copy may wait for ever for a lock that a thread held"))
    large = dataset.load(path, recipe=recipe(), device="cpu", seed=3, image_size=16)
    assert len(list(large.train.epoch(0))) == len(large.train)
    assert names and all(name.startswith("images") for name in names)


def test_a_larger_size_is_read_from_the_files(tmp_path):
    path = folder(tmp_path, image_size_by_model={"alexnet": 16})
    assert type(load(path).train.images).__name__ == "Pixels"
    large = load(path, image_size=16)
    assert next(large.train.epoch(0))[0].shape == (8, 3, 16, 16)


@pytest.mark.parametrize(("fault", "match"), [("changed", "has changed since"), ("gone", "cannot be read")])
def test_a_streamed_file_that_is_not_what_it_was_is_one_sentence(tmp_path, fault, match):
    path = folder(tmp_path, image_size_by_model={"alexnet": 16})
    for file in (tmp_path / "mine" / "class1").iterdir():
        file.unlink()
        if fault == "changed":
            file.write_bytes(picture(77))
    with pytest.raises(DataError, match=match) as caught:
        list(load(path, image_size=16).train.epoch(0))
    assert "\n" not in str(caught.value)


def test_a_random_rectangle_of_each_file_is_shown(tmp_path):
    Image.linear_gradient("L").save(tmp_path / "gradient.png")
    for label in ("class0", "class1"):
        (tmp_path / "mine" / label).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "mine" / label / f"{number}.png").write_bytes((tmp_path / "gradient.png").read_bytes())
    out = tmp_path / "mine.safetensors"
    section = {"source": "imagefolder", "path": "mine", "image_size": 8, "image_size_by_model": {"alexnet": 16}}
    prepare("mine", {**section, "normalize": "none"}, root=tmp_path, out=out)
    batches = list(load(out, image_size=16, area=0.25).train.epoch(4))
    images = torch.cat([x for x, _ in batches])
    # The gradient runs from top to bottom, so what is seen of it is the height of the rectangle.
    heights = images[:, 0, -1, 0] - images[:, 0, 0, 0]
    assert heights.unique().numel() > 20 and heights.min() > 0.35 and heights.max() <= 1
    assert same(load(out, image_size=16, area=0.25).train.epoch(4, start=2), batches[2:])
    with pytest.raises(DataError, match=r"'augment.area' is for images that are read from their files"):
        load(out, area=0.5)


def test_a_training_set_can_be_augmented_otherwise(toy):
    train = load(toy).train
    plain = torch.cat([x for x, _ in train.epoch(0)])
    flipped = torch.cat([x for x, _ in replace(train, augmentation=Augmentation(flip=True)).epoch(0)])
    mirrored = torch.tensor([not torch.equal(*pair) for pair in zip(plain, flipped, strict=True)])
    assert 5 < int(mirrored.sum()) < 25
    assert torch.equal(plain[mirrored].flip(3), flipped[mirrored])
