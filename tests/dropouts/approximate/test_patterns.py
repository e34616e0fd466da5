"""Patterns keep every unit as often as Bernoulli dropout does; how many they keep at a time is their own."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from dense import name_of

from dropouts.approximate import Blocks, Rows, SomeBlocks, Tiles, maximum_entropy
from dropouts.approximate.patterns import Period, bounds

DRAWS = 4000
OF_UNITS = [Rows(), Blocks(), SomeBlocks(8), Rows(partial(maximum_entropy, largest=8)), Blocks(maximum_entropy)]


def masks(pattern, rate, width, draws=DRAWS):
    """(draws, width), ones where a unit is kept."""
    generator = torch.Generator().manual_seed(0)
    found = torch.zeros(draws, width)
    for number in range(draws):
        found[number, pattern.kept(pattern.draw(rate, generator), width).units] = 1
    return found


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("pattern", OF_UNITS, ids=name_of)
def test_every_unit_is_kept_as_often_as_by_bernoulli_dropout(pattern, rate):
    shares = masks(pattern, rate, 50).mean(0)
    assert (shares - (1 - rate)).abs().max() < 4 * math.sqrt(rate * (1 - rate) / DRAWS)
    assert abs(float(shares.mean()) - (1 - rate)) < 0.03


@pytest.mark.parametrize("staggered", [True, False])
def test_every_weight_is_in_a_kept_tile_equally_often(staggered):
    tiles, generator = Tiles(size=4, staggered=staggered), torch.Generator().manual_seed(0)
    counts = torch.zeros(18, 22)
    for _ in range(DRAWS):
        for rows, columns in tiles.tiling(tiles.draw(0.7, generator), 18, 22).groups:
            counts[rows[:, None], columns] += 1
    assert (counts / DRAWS - 0.3).abs().max() < 4 * math.sqrt(0.3 * 0.7 / DRAWS)


def test_the_number_kept_varies_least_with_neighbouring_periods_and_far_more_than_bernoullis_with_many():
    bernoulli = 64 * 0.25
    assert masks(Blocks(), 0.5, 64).sum(1).var() == 0
    assert masks(SomeBlocks(16), 0.5, 64).sum(1).var() == 0
    assert masks(Rows(maximum_entropy), 0.5, 64).sum(1).var() > 20 * bernoulli


def test_neighbours_are_kept_together_in_blocks_and_never_in_residue_classes():
    blocks, rows = masks(Blocks(), 0.5, 64), masks(Rows(), 0.5, 64)
    assert (rows[:, :-1] * rows[:, 1:]).sum() == 0 and torch.equal(rows[:, :-2], rows[:, 2:])
    assert float((blocks[:, :-1] == blocks[:, 1:]).float().mean()) > 0.98


@pytest.mark.parametrize(("width", "pieces"), [(650, 2), (650, 3), (2048, 16), (10, 3), (7, 7), (1000, 16)])
def test_pieces_cover_a_width_and_start_where_products_are_fast(width, pieces):
    edges = bounds(width, pieces)
    sizes = [end - start for start, end in pairwise(edges)]
    assert edges[0] == 0 and edges[-1] == width and len(sizes) == pieces
    assert min(sizes) >= 1 and max(abs(size - width / pieces) for size in sizes) <= 8
    if width >= 64 * pieces:
        assert all(edge % 8 == 0 for edge in edges[:-1])


def test_units_of_some_blocks_come_in_the_runs_that_are_promised():
    kept = SomeBlocks(8).kept((1, 2, 6), 64)
    assert kept.block == 8 and kept.units.tolist() == [*range(8, 24), *range(48, 56)]


def test_the_published_tiles_only_drop_inputs_where_the_staggered_do_not():
    choice = Period(2, 1)
    plain, staggered = (Tiles(size=2, staggered=flag).tiling(choice, 8, 8).groups for flag in (False, True))
    assert len(plain) == 1 and plain[0][1].tolist() == [2, 3, 6, 7]
    assert len(staggered) == 2 and {len(rows) for rows, _ in staggered} == {4}
    odd = Tiles(size=2, staggered=False).tiling(choice, 8, 10).groups  # Five columns of tiles are odd.
    assert len(odd) == 2


def test_columns_that_no_row_of_tiles_reads_are_left_out():
    tiling = Tiles(size=2).tiling(Period(3, 0), 2, 12)  # One row of tiles reads one class of columns of three.
    assert tiling.input_sizes == [4, 8] and tiling.columns.tolist() == [0, 1, 6, 7, 2, 3, 4, 5, 8, 9, 10, 11]


def test_k_of_n_takes_the_neighbours_of_a_rate_between():
    generator = torch.Generator().manual_seed(0)
    counts = [len(SomeBlocks(16).draw(0.7, generator)) for _ in range(2000)]
    assert set(counts) == {4, 5} and sum(counts) / 2000 == pytest.approx(4.8, abs=0.04)
