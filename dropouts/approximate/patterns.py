"""Regular patterns of units or tiles: what one iteration keeps, drawn so that it can be cut out of a matrix cheaply.

A pattern draws a choice, which knows no width, and says what a choice keeps of a given width. So one choice can serve
several layers. `largest` is the number of pieces of a width that the pattern may ask for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import torch
from torch import Tensor

from dropouts.approximate.distributions import least_variance
from dropouts.approximate.parts import Entries, Kept, entries
from dropouts.checks import check_rate

Distribution = Callable[[float], Tensor]


@dataclass(frozen=True)
class Period:
    """One unit (or block, or tile) in `period` is kept: that with the number `offset`."""

    period: int
    offset: int


@dataclass(frozen=True)
class Periodic:
    """What the patterns with a period have in common: dp is drawn from its distribution, b uniformly from 0..dp-1."""

    distribution: Distribution = least_variance

    def largest(self, rate: float) -> int:
        return int(torch.nonzero(_probabilities(self.distribution, rate))[-1]) + 1

    def draw(self, rate: float, generator: torch.Generator | None) -> Period:
        probabilities = _probabilities(self.distribution, rate)
        period = int(torch.multinomial(probabilities, 1, generator=generator)) + 1
        return Period(period, int(torch.randint(period, (), generator=generator)))


def bounds(width: int, pieces: int) -> list[int]:
    """Where the pieces of a width begin and end: (pieces + 1,); multiples of 8 if that shifts them by little.

    Products with odd widths or starts are slower; every unit is in one piece all the same.
    """
    grain = 8 if width >= 64 * pieces else 1
    return [min(width, round(piece * width / pieces / grain) * grain) for piece in range(pieces)] + [width]


@dataclass(frozen=True)
class Rows(Periodic):
    """The published row pattern: units i with i = b mod dp are kept (Song et al., arXiv:1805.08939)."""

    def kept(self, choice: Period, width: int) -> Kept:
        return Kept(slice(choice.offset, width, choice.period))


@dataclass(frozen=True)
class Blocks(Periodic):
    """The same up to the order of units: the b-th of dp contiguous blocks is kept, which BLAS takes as it is.

    Attributes:
        permuted: The units of a layer change places at the end of each epoch, so that blocks are random sets.
    """

    permuted: bool = True

    def kept(self, choice: Period, width: int) -> Kept:
        edges = bounds(width, choice.period)
        return Kept(slice(edges[choice.offset], edges[choice.offset + 1]))


@dataclass(frozen=True)
class SomeBlocks:
    """Any k of n contiguous blocks are kept; where (1 - rate) n is no whole number, k takes its two neighbours."""

    blocks: int = 16

    def largest(self, rate: float) -> int:
        if (1 - rate) * self.blocks < 1:
            raise ValueError(f"rate {rate} keeps less than one of {self.blocks} blocks: more blocks are needed")
        return self.blocks

    def draw(self, rate: float, generator: torch.Generator | None) -> tuple[int, ...]:
        wanted = (1 - check_rate(rate)) * self.blocks
        low = math.floor(wanted + 1e-9)
        count = low + int(torch.rand((), generator=generator, dtype=torch.float64) < wanted - low)
        return tuple(sorted(torch.randperm(self.blocks, generator=generator)[:count].tolist()))

    def kept(self, choice: tuple[int, ...], width: int) -> Kept:
        edges = bounds(width, self.blocks)
        units = torch.cat([torch.arange(edges[block], edges[block + 1]) for block in choice])
        return Kept(units, math.gcd(*edges))


@dataclass(frozen=True)
class Tiles(Periodic):
    """The published tile pattern: of the weights' tiles, numbered row by row, those with number = b mod dp are kept.

    Attributes:
        size: Side of a tile, in weights; tiles at the edges may be smaller.
        staggered: Number a tile by row + column instead. As published, every row of tiles keeps the same columns as
            soon as dp divides the number of columns, and the pattern only drops inputs.
    """

    size: int = 32
    staggered: bool = True

    def tiling(self, choice: Period, rows: int, columns: int) -> Tiling:
        """What a choice keeps of a (rows, columns) weight."""
        return _tiling(self, choice, rows, columns)


@dataclass(frozen=True, eq=False)
class Tiling:
    """The kept tiles of a weight, in groups of rows that keep the same columns.

    Attributes:
        groups: Pairs of rows and columns, both (kept,) int64; each row of the weight is in one group.
        entries: Where the kept weights are, group after group.
        rows: Rows of the weight in the order of the groups.
        rows_back: The inverse order.
        columns: Columns in the order of the groups, those that no group reads last.
        columns_back: The inverse order.
    """

    groups: list[tuple[Tensor, Tensor]]
    entries: Entries
    rows: Tensor
    rows_back: Tensor
    columns: Tensor
    columns_back: Tensor

    @property
    def part_sizes(self) -> list[int]:
        """Entries of each group."""
        return [len(rows) * len(columns) // self.entries.block for rows, columns in self.groups]

    @property
    def input_sizes(self) -> list[int]:
        """Columns of each group, and those that none reads."""
        read = [len(columns) for _, columns in self.groups]
        return [*read, len(self.columns) - sum(read)]


@lru_cache(maxsize=512)
def _tiling(tiles: Tiles, choice: Period, rows: int, columns: int) -> Tiling:
    row, column = torch.arange(rows) // tiles.size, torch.arange(columns) // tiles.size
    step = 1 if tiles.staggered else int(column[-1]) + 1
    first = (choice.offset - row * step) % choice.period
    groups = [
        (torch.nonzero(first == group)[:, 0], torch.nonzero(column % choice.period == group)[:, 0])
        for group in first.unique().tolist()
    ]
    unread = torch.nonzero(~torch.isin(column % choice.period, first))[:, 0]
    block = math.gcd(tiles.size, columns)
    numbers = torch.cat([entries(*group, columns, block).numbers for group in groups])
    in_groups = torch.cat([group[0] for group in groups]), torch.cat([*(group[1] for group in groups), unread])
    return Tiling(
        groups,
        Entries(numbers, block, (len(numbers), block)),
        in_groups[0],
        in_groups[0].argsort(),
        in_groups[1],
        in_groups[1].argsort(),
    )


UnitPattern = Rows | Blocks | SomeBlocks
Pattern = UnitPattern | Tiles


@cache
def _probabilities(distribution: Distribution, rate: float) -> Tensor:
    return distribution(rate)
