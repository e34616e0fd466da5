"""Moves channels and cuts weights fast: gathers on two-dimensional channels-last views, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

from edropout.subnetworks.layout import LayerCut


class _Cut(torch.autograd.Function):
    """Gathers rows and columns; the gradient is one copy into zeros, as no entry is gathered twice."""

    @staticmethod
    def forward(ctx, weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, columns)
        ctx.shape = weight.shape
        return _gather(weight, rows, columns)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = ctx.saved_tensors
        full = gradient.new_zeros(ctx.shape)
        if columns is None:
            return full.index_copy_(0, rows, gradient), None, None
        numbers = flat_numbers(rows, columns, ctx.shape[0], ctx.shape[1])
        full.flatten(0, 1).index_copy_(0, numbers, gradient.flatten(0, 1))
        return full, None, None


def _gather(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Gathers whole rows, or kernels by one flat number each, which is up to eight times faster than axis by axis."""
    if columns is None:
        return weight.index_select(0, rows)
    numbers = flat_numbers(rows, columns, weight.shape[0], weight.shape[1])
    found = weight.reshape(-1, *weight.shape[2:]).index_select(0, numbers)
    return found.reshape(-1, columns.shape[-1], *weight.shape[2:])


def flat_numbers(rows: Tensor | None, columns: Tensor, num_rows: int, num_columns: int) -> Tensor:
    """Numbers of the entries (row, column) in a row-major table of `num_columns` columns, row by row.

    `columns` is (columns,), or (groups, columns) if each group of rows has columns of its own.
    """
    if rows is None:
        rows = torch.arange(num_rows, device=columns.device)
    if columns.ndim == 2:
        columns = columns.repeat_interleave(len(rows) // len(columns), 0)
    return (rows[:, None] * num_columns + columns).flatten()


def cut_weight(weight: Tensor, cut: LayerCut) -> Tensor:
    """Returns what `cut` leaves of a weight (rows, columns, ...); its gradient is zero everywhere else."""
    rows, columns = _on(cut.rows, weight), _on(cut.columns, weight)
    if rows is None and columns is None:
        return weight
    if cut.block > 1:
        weight = weight.unflatten(1, (-1, cut.block))
        columns = columns[:: cut.block] // cut.block
    found = _Cut.apply(weight, rows, columns) if torch.is_grad_enabled() else _gather(weight, rows, columns)
    return found.flatten(1) if cut.block > 1 else found


def cut_vector(vector: Tensor | None, cut: LayerCut) -> Tensor | None:
    """Returns what `cut` leaves of a bias or of a batch-norm parameter."""
    if vector is None or cut.rows is None:
        return vector
    return vector.index_select(0, _on(cut.rows, vector))


def _on(numbers: Tensor | None, like: Tensor) -> Tensor | None:
    return None if numbers is None else numbers.to(like.device)


def _table(x: Tensor) -> Tensor:
    """(batch, channels, height, width) as (pixels, channels), (batch, features) as it is."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1]) if x.ndim == 4 else x


def _image(table: Tensor, like: Tensor) -> Tensor:
    """Undoes `_table`, channels-last in memory; not a view, as the activation that follows may work in place."""
    if like.ndim != 4:
        return table
    batch, _, height, width = like.shape
    view = table.view(batch, height, width, table.shape[1]).permute(0, 3, 1, 2)
    return table.new_empty(0).set_(table.untyped_storage(), table.storage_offset(), view.shape, view.stride())


def channels_last(x: Tensor) -> Tensor:
    """Images with their channels last in memory, in which channels are gathered fastest; anything else as it is."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def take_channels(x: Tensor, positions: Tensor, axis: int = 1) -> Tensor:
    """Gathers channels of (batch, channels, ...), or on the last axis; the position after the last stands for zero."""
    positions = positions.to(x.device)
    held = x.shape[axis]
    if axis == -1 and x.ndim != 2:
        padded = torch.nn.functional.pad(x, [0, 1]) if bool((positions == held).any()) else x
        return padded.index_select(-1, positions)
    if x.ndim not in (2, 4):
        padded = torch.nn.functional.pad(x, [0, 0] * (x.ndim - 2) + [0, 1])
        return padded.index_select(1, positions)
    places = (positions < held).nonzero().squeeze(1)
    chosen = positions[places]
    if len(chosen) == held and torch.equal(chosen, torch.arange(held, device=x.device)):
        chosen = None
    if chosen is None and len(places) == len(positions):
        return x
    return _Take.apply(x, chosen, None if len(places) == len(positions) else places, len(positions))


class _Take(torch.autograd.Function):
    """Channels `chosen` of x (None for all) at `places` among `count` channels (None: in this order), zeros between."""

    @staticmethod
    def forward(ctx, x: Tensor, chosen: Tensor | None, places: Tensor | None, count: int) -> Tensor:
        ctx.chosen, ctx.places, ctx.held = chosen, places, x.shape[1]
        return _image(_spread(_pick(_table(x), chosen), places, count), x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _Take.apply(gradient, ctx.places, ctx.chosen, ctx.held), None, None, None


def _pick(table: Tensor, columns: Tensor | None) -> Tensor:
    return table if columns is None else table.index_select(1, columns)


def _spread(table: Tensor, columns: Tensor | None, count: int) -> Tensor:
    # index_add_ is twice as fast as index_copy_ along the last axis.
    return table if columns is None else table.new_zeros(len(table), count).index_add_(1, columns, table)


def add_channels(full: Tensor, part: Tensor, places: Tensor, *, in_place: bool) -> Tensor:
    """Adds the channels of `part` to those of `full` at `places`; in place only where nothing else reads `full`."""
    places = places.to(full.device)
    if full.ndim not in (2, 4):
        return full.index_add(1, places, part)
    if in_place and not torch.is_grad_enabled():
        table = _table(full)
        summed = table.index_add_(1, places, _table(part))
        return full if table.data_ptr() == full.data_ptr() else _image(summed, full)
    return _Add.apply(full, part, places)


class _Add(torch.autograd.Function):
    """`full` with the channels of `part` added at `places`."""

    @staticmethod
    def forward(ctx, full: Tensor, part: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        return _image(_table(full).index_add(1, places, _table(part)), full)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        (places,) = ctx.saved_tensors
        return gradient, _Take.apply(gradient, places, None, len(places)), None
