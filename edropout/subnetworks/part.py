"""What is left of one parameter under a plan: its shape in the pruned network, and the way there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edropout.subnetworks.channels import flat_numbers
from edropout.subnetworks.layout import LayerCut, Plan

# For each axis of a tensor the axis of the parameter that it follows, None for one of length 1 whatever is cut.
Axes = tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """A parameter of a cut layer as the pruned network has it.

    An entry of it is a row, or a kernel or a block of columns within a row.

    Attributes:
        cut: What is left of the layer.
        full: Shape of the whole parameter.
        shape: Shape in the pruned network.
        entries: Number of entries of the whole parameter.
        numbers: Numbers of the entries that are left, in order.
        filling: (entries left,) True for entries of rows that only fill a group up and are zero; None if there is none.
    """

    cut: LayerCut
    full: torch.Size
    shape: tuple[int, ...]
    entries: int
    numbers: Tensor
    filling: Tensor | None

    def take(self, value: Tensor, axes: Axes, out: Tensor | None = None) -> Tensor:
        """What is left of a tensor that follows the parameter along `axes`.

        Args:
            value: The whole tensor.
            axes: As `Axes` says.
            out: Flat memory for the result, of at least its size.
        """
        table, axis, numbers, filling = self._table(value, axes)
        if numbers is None:
            return value.clone()
        if out is not None:
            shape = [*table.shape[:axis], numbers.shape[0], *table.shape[axis + 1 :]]
            out = out[: torch.Size(shape).numel()].view(shape)
        found = torch.index_select(table, axis, numbers, out=out)
        if filling is not None:
            found.masked_fill_(filling.view(-1, *[1] * (found.ndim - 1)), 0)
        return found.view([1 if along is None else self.shape[along] for along in axes])

    def put_(self, value: Tensor, part: Tensor, axes: Axes) -> None:
        """Writes `part`, which `take` returned and a step has changed, back to its places in the whole tensor."""
        table, axis, numbers, filling = self._table(value, axes)
        if numbers is None:
            value.copy_(part)
            return
        found = part.reshape([*table.shape[:axis], numbers.shape[0], *table.shape[axis + 1 :]])
        if filling is not None:
            numbers, found = numbers[~filling], found[~filling]
        table.index_copy_(axis, numbers, found)
        if table.data_ptr() != value.data_ptr():  # channels-last weights cannot be viewed as a table
            value.copy_(table.reshape(value.shape))

    def whole(self, axes: Axes) -> list[int]:
        """Shape of a whole tensor that follows the parameter along `axes`."""
        return [1 if along is None else self.full[along] for along in axes]

    def _table(self, value: Tensor, axes: Axes) -> tuple[Tensor, int, Tensor | None, Tensor | None]:
        """The tensor, the axis and the numbers along it of what is left, None for all, and which of them fill up."""
        rows, columns = self.cut.rows, self.cut.columns if len(self.full) > 1 else None
        if axes[: 1 if columns is None else 2] == (0, 1)[: 1 if columns is None else 2]:
            return value.reshape(self.entries, -1), 0, self.numbers, self.filling
        if axes[:1] == (0,):
            return value, 0, None if rows is None else rows.to(value.device), self.cut.padding
        if columns is None or 1 not in axes:
            return value, 0, None, None
        if columns.ndim > 1:
            raise ValueError(
                "an optimiser's state for the columns of a grouped convolution differs from group to group"
            )
        return value, axes.index(1), columns.to(value.device), None


def parts(modules: Mapping[str, nn.Module], plan: Plan) -> dict[nn.Parameter, Part]:
    """Maps each parameter that a plan cuts to what is left of it."""
    found = {}
    for layer, cut in plan.cuts.items():
        for parameter in modules[layer].parameters(recurse=False):
            if cut.rows is not None or (cut.columns is not None and parameter.ndim > 1):
                found[parameter] = _part(parameter, cut)
    return found


def _part(parameter: nn.Parameter, cut: LayerCut) -> Part:
    full, device = parameter.shape, parameter.device
    rows, columns = cut.rows, cut.columns if parameter.ndim > 1 else None
    height = full[0] if rows is None else len(rows)
    filling = None if cut.padding is None else cut.padding.to(device)
    if columns is None:
        return Part(cut, full, (height, *full[1:]), full[0], rows.to(device), filling)
    shape, width = (height, columns.shape[-1], *full[2:]), full[1] // cut.block
    columns = columns if cut.block == 1 else columns[:: cut.block] // cut.block
    numbers = flat_numbers(rows, columns, full[0], width)
    if filling is not None:
        filling = filling.repeat_interleave(len(numbers) // height)
    return Part(cut, full, shape, full[0] * width, numbers.to(device), filling)
