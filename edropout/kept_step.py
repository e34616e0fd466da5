"""An optimiser step that moves only what is left of the network: dropped weights and their optimiser state stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edropout.channels import flat_numbers
from edropout.layout import Plan


def kept_numbers(modules: Mapping[str, nn.Module], plan: Plan) -> dict[nn.Parameter, tuple[int, Tensor]]:
    """Maps each parameter that a plan cuts to (leading axes to merge, numbers of the entries that are left)."""
    numbers = {}
    for layer, cut in plan.cuts.items():
        for parameter in modules[layer].parameters(recurse=False):
            live = cut.rows if cut.padding is None else cut.rows[~cut.padding]
            columns = cut.columns if parameter.ndim > 1 else None
            if columns is not None and columns.ndim == 2 and cut.padding is not None:
                per_row = columns.repeat_interleave(len(cut.rows) // len(columns), 0)[~cut.padding]
                found = (live[:, None] * parameter.shape[1] + per_row).flatten()
            elif columns is not None:
                found = flat_numbers(live, columns, parameter.shape[0], parameter.shape[1])
            elif live is not None:
                found = live
            else:
                continue
            numbers[parameter] = (1 if columns is None else 2, found.to(parameter.device))
    return numbers


@contextmanager
def kept_only(optimizer: Optimizer, numbers: Mapping[nn.Parameter, tuple[int, Tensor]]) -> Iterator[None]:
    """Within the context the optimiser sees, of each cut parameter, only the part that is left.

    Parameters, gradients and optimiser state of the same shape are gathered before and written back after it, so the
    dropped part keeps its bits whatever momentum or weight decay do.
    """
    stand_ins: list[tuple[dict, int, nn.Parameter, nn.Parameter]] = []
    for group in optimizer.param_groups:
        for place, parameter in enumerate(group["params"]):
            if parameter in numbers and parameter.grad is not None:
                stand_in = _gathered(optimizer, parameter, *numbers[parameter])
                stand_ins.append((group, place, parameter, stand_in))
                group["params"][place] = stand_in
    try:
        yield
    finally:
        for group, place, parameter, stand_in in stand_ins:
            group["params"][place] = parameter
            _write_back(optimizer, parameter, stand_in, *numbers[parameter])


def _table(value: Tensor, axes: int) -> Tensor:
    return value if axes == 1 else value.reshape(value.shape[0] * value.shape[1], *value.shape[2:])


def _gathered(optimizer: Optimizer, parameter: nn.Parameter, axes: int, numbers: Tensor) -> nn.Parameter:
    stand_in = nn.Parameter(_table(parameter.detach(), axes).index_select(0, numbers))
    stand_in.grad = _table(parameter.grad, axes).index_select(0, numbers)
    if parameter in optimizer.state:
        optimizer.state[stand_in] = {
            key: _table(value, axes).index_select(0, numbers) if _follows(value, parameter) else value
            for key, value in optimizer.state[parameter].items()
        }
    return stand_in


def _write_back(
    optimizer: Optimizer, parameter: nn.Parameter, stand_in: nn.Parameter, axes: int, numbers: Tensor
) -> None:
    with torch.no_grad():
        _copy_entries_(parameter, axes, numbers, stand_in.detach())
        for key, value in optimizer.state.pop(stand_in, {}).items():
            state = optimizer.state[parameter]
            if not _follows(value, stand_in):
                state[key] = value
                continue
            if not _follows(state.get(key), parameter):
                state[key] = torch.zeros_like(parameter, dtype=value.dtype)
            _copy_entries_(state[key], axes, numbers, value)


def _copy_entries_(full: Tensor, axes: int, numbers: Tensor, part: Tensor) -> None:
    table = _table(full, axes)
    table.index_copy_(0, numbers, part)
    if table.data_ptr() != full.data_ptr():  # channels-last weights cannot be viewed as a table
        full.copy_(table.reshape(full.shape))


def _follows(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape
