"""What an iteration keeps of a layer's units, and of a parameter: a view where it is one, else a copy to write back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Kept:
    """Units that are kept of a width.

    Attributes:
        units: A slice, or the numbers of the units in ascending order: (kept,) int64.
        block: The units come in aligned runs of so many.
    """

    units: slice | Tensor
    block: int = 1

    def numbers(self, width: int) -> Tensor:
        """(kept,) int64."""
        return torch.arange(width)[self.units]


@dataclass(frozen=True, eq=False)
class Slices:
    """A part that is a view; of a parameter with the rows of several gates one below the other, a copy.

    Attributes:
        index: A slice for each side.
        gates: Number of gates.
    """

    index: tuple[slice, ...]
    gates: int = 1

    def take(self, full: Tensor) -> Tensor:
        return self._of(full).flatten(0, 1) if self.gates > 1 else full[self.index]

    def put_(self, full: Tensor, part: Tensor) -> None:
        """Writes a part back; a view that `take` gave has done so by itself."""
        here = self._of(full)
        if here.data_ptr() != part.data_ptr():
            here.copy_(part.view(here.shape))

    def _of(self, full: Tensor) -> Tensor:
        return full.unflatten(0, (self.gates, -1))[:, *self.index] if self.gates > 1 else full[self.index]


@dataclass(frozen=True, eq=False)
class Entries:
    """A part that is gathered: entries of a parameter seen as a table of rows of `block` values.

    Attributes:
        numbers: (entries,) int64.
        block: Length of an entry.
        shape: Of the part.
    """

    numbers: Tensor
    block: int
    shape: tuple[int, ...]

    def take(self, full: Tensor) -> Tensor:
        return full.reshape(-1, self.block).index_select(0, self.numbers.to(full.device)).view(self.shape)

    def put_(self, full: Tensor, part: Tensor) -> None:
        full.view(-1, self.block).index_copy_(0, self.numbers.to(full.device), part.reshape(-1, self.block))


Cut = Slices | Entries


def cut(shape: torch.Size, rows: Kept | None = None, columns: Kept | None = None, gates: int = 1) -> Cut:
    """What is left of a parameter of this shape; None keeps a whole side, rows are kept of every gate alike."""
    sides = [slice(None) if kept is None else kept.units for kept in (rows, columns)]
    slices = tuple(side for side in sides if isinstance(side, slice))
    if len(slices) == len(sides):
        return Slices(slices[: len(shape)], 1 if rows is None else gates)
    height = shape[0] // gates
    of_a_gate = torch.arange(height) if rows is None else rows.numbers(height)
    row_numbers = (torch.arange(gates)[:, None] * height + of_a_gate).flatten()
    if len(shape) == 1:
        return Entries(row_numbers, 1, (len(row_numbers),))
    column_numbers = torch.arange(shape[1]) if columns is None else columns.numbers(shape[1])
    return entries(row_numbers, column_numbers, shape[1], shape[1] if columns is None else columns.block)


def entries(rows: Tensor, columns: Tensor, width: int, block: int) -> Entries:
    """The entries at these rows and columns of a matrix `width` wide; columns come in aligned runs of `block`."""
    numbers = rows[:, None] * (width // block) + columns[::block] // block
    return Entries(numbers.flatten(), block, (len(rows), len(columns)))


def select(x: Tensor, kept: Kept) -> Tensor:
    """The kept features: (..., features) -> (..., kept)."""
    return x[..., kept.units] if isinstance(kept.units, slice) else x.index_select(-1, kept.units.to(x.device))


def spread(part: Tensor, kept: Kept, base: Tensor) -> Tensor:
    """`base` with the kept features in their places: (..., kept) -> (..., features)."""
    full = base.clone()
    if isinstance(kept.units, slice):
        full[..., kept.units] = part
        return full
    return full.index_copy(-1, kept.units.to(part.device), part)
