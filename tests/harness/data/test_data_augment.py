"""Augmentation worked out by hand, and beside torchvision's."""

import pytest
import torch

from harness.config.recipe import Augmentation
from harness.data import augment

FULL = {"crop": 2, "flip": True, "rotation": 90, "cutout": 3}


def cut(image, *, top=0, left=0, mirror=0.0, angle=0.0):
    """`augment.gather` of one image (height, width) with given draws."""
    pixels = torch.cat([image.flatten(), torch.zeros(1, dtype=torch.uint8)])[:, None]
    angle = torch.tensor(angle).deg2rad()
    draws = torch.tensor([[top, left, mirror, angle.cos(), angle.sin(), 0, 0]])
    shape = (1, *image.shape)
    return augment.gather(pixels, torch.tensor([0]), draws, shape=shape, rotate=bool(angle)).view(image.shape)


GRID = torch.arange(1, 10, dtype=torch.uint8).view(3, 3)


def test_a_crop_shifts_the_image_and_shows_black_outside():
    assert cut(GRID, top=1, left=-1).tolist() == [[0, 4, 5], [0, 7, 8], [0, 0, 0]]


def test_a_flip_mirrors_what_was_cut_out():
    assert cut(GRID, mirror=1).tolist() == [[3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert torch.equal(cut(GRID, top=1, left=-1, mirror=1), cut(GRID, top=1, left=-1).flip(1))


def test_a_quarter_turn_is_counter_clockwise():
    assert torch.equal(cut(GRID, angle=90.0), torch.rot90(GRID))


@pytest.mark.parametrize("angle", [10.0, 45.0, 123.0, 180.0])
def test_a_rotation_is_that_of_torchvision(angle):
    from torchvision.transforms.v2 import functional

    image = torch.randint(1, 256, (32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = functional.rotate(image[None], angle)[0]
    assert (cut(image, angle=angle) == expected).float().mean() > 0.995  # Ties are rounded either way.


def test_draws_are_uniform_over_what_the_recipe_allows():
    generator = torch.Generator().manual_seed(0)
    draws = augment.draw(Augmentation(**FULL), 20_000, 6, 5, generator=generator)
    counts = {column: draws[:, column].unique(return_counts=True) for column in (0, 1, 2, 5, 6)}
    for column, values in ((0, range(-2, 3)), (1, range(-2, 3)), (2, range(2)), (5, range(6)), (6, range(5))):
        found, number = counts[column]
        assert found.tolist() == list(values)
        assert (number / 20_000 - 1 / len(values)).abs().max() < 0.02
    degrees = torch.atan2(draws[:, 4], draws[:, 3]).rad2deg()
    assert degrees.min() >= 0 and degrees.max() <= 90 and abs(degrees.mean() - 45) < 1


def test_a_cutout_is_a_square_that_may_reach_over_the_border():
    draws = torch.zeros(2, 7)
    draws[:, 5], draws[:, 6] = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 0.0])
    x = augment.cut_out_(torch.ones(2, 3, 6, 6), draws, 4)
    assert (x[0] == 0).nonzero()[:, 1:].unique(dim=0).tolist() == [[r, c] for r in range(4) for c in range(1, 5)]
    assert int((x[1, 0] == 0).sum()) == 4
