"""Moves channels and cuts weights fast: gathers on two-dimensional channels-last views, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from edropout.layout import LayerCut


class _GatherRows(torch.autograd.Function):
    """index_select on the first axis for numbers without repetition: the gradient is a copy instead of a sum."""

    @staticmethod
    def forward(ctx, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = table.shape
        return table.index_select(0, rows)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.shape).index_copy_(0, rows, gradient), None


def flat_numbers(rows: Tensor | None, columns: Tensor | None, num_rows: int, num_columns: int) -> Tensor:
    """Numbers of the entries (row, column) in a row-major table of `num_columns` columns, row by row."""
    if rows is None:
        rows = torch.arange(num_rows, device=columns.device)
    if columns.ndim == 2:
        columns = columns.repeat_interleave(len(rows) // len(columns), 0)
    return (rows[:, None] * num_columns + columns).flatten()


def cut_weight(weight: Tensor, cut: LayerCut) -> Tensor:
    """Returns what `cut` leaves of a weight (rows, columns, ...); its gradient is zero everywhere else.

    One gather on a two-dimensional view is eight times faster than one gather for each axis.
    """
    rows, columns = _on(cut.rows, weight), _on(cut.columns, weight)
    if columns is None:
        return weight if rows is None else _GatherRows.apply(weight, rows)
    shape = weight.shape
    numbers = flat_numbers(rows, columns, shape[0], shape[1])
    table = weight.reshape(shape[0] * shape[1], *shape[2:])
    return _GatherRows.apply(table, numbers).reshape(-1, columns.shape[-1], *shape[2:])


def cut_vector(vector: Tensor | None, cut: LayerCut) -> Tensor | None:
    """Returns what `cut` leaves of a bias or of a batch-norm parameter."""
    if vector is None or cut.rows is None:
        return vector
    return _GatherRows.apply(vector, _on(cut.rows, vector))


def _on(numbers: Tensor | None, like: Tensor) -> Tensor | None:
    return None if numbers is None else numbers.to(like.device)


def _table(x: Tensor) -> Tensor:
    """(batch, channels, height, width) as (pixels, channels), (batch, features) as it is."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.ndim == 4 else x


def _image(table: Tensor, like: Tensor) -> Tensor:
    """Undoes `_table`, channels-last in memory."""
    if like.ndim != 4:
        return table
    batch, _, height, width = like.shape
    return table.view(batch, height, width, table.shape[1]).permute(0, 3, 1, 2)


def take_channels(x: Tensor, positions: Tensor) -> Tensor:
    """Gathers channels of (batch, channels, ...); the position after the last channel stands for zero."""
    positions = positions.to(x.device)
    held = x.shape[1]
    if x.ndim not in (2, 4):
        padded = torch.nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [0, 1])
        return padded.index_select(1, positions)
    table = _table(x)
    present = positions < held
    if bool(present.all()):
        return _image(table.index_select(1, positions), x)
    places = present.nonzero().squeeze(1)
    chosen = positions[places]
    if len(chosen) < held or not torch.equal(chosen, torch.arange(held, device=x.device)):
        table = table.index_select(1, chosen)
    return _image(table.new_zeros(len(table), len(positions)).index_copy(1, places, table), x)


def add_channels(full: Tensor, part: Tensor, places: Tensor, *, in_place: bool) -> Tensor:
    """Adds the channels of `part` to those of `full` at `places`; in place only where nothing else reads `full`."""
    places = places.to(full.device)
    if full.ndim not in (2, 4) or full.shape[2:] != part.shape[2:]:
        return full.index_add(1, places, part.expand(*part.shape[:2], *full.shape[2:]))
    table = _table(full)
    owned = in_place and table.data_ptr() == full.data_ptr()
    summed = (table.index_add_ if owned else table.index_add)(1, places, _table(part))
    return _image(summed, full)
