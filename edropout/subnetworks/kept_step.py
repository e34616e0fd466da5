"""An optimiser step that moves only what is left of the network: dropped weights and their optimiser state stay."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from edropout.subnetworks.channels import flat_numbers
from edropout.subnetworks.layout import LayerCut, Plan


def kept_numbers(modules: Mapping[str, nn.Module], plan: Plan) -> dict[nn.Parameter, tuple[int, Tensor]]:
    """Maps each parameter that a plan cuts to what is left of it.

    Returns:
        parameter -> (number of entries that its leading axes have, numbers of the entries that are left); an entry is
        a row, or a kernel or block of columns within a row.
    """
    numbers = {}
    for layer, cut in plan.cuts.items():
        for parameter in modules[layer].parameters(recurse=False):
            found = _entries(parameter, cut)
            if found is not None:
                numbers[parameter] = found[0], found[1].to(parameter.device)
    return numbers


def _entries(parameter: nn.Parameter, cut: LayerCut) -> tuple[int, Tensor] | None:
    rows, columns = cut.rows, cut.columns if parameter.ndim > 1 else None
    if columns is None and rows is None:
        return None
    if columns is None:
        return len(parameter), rows if cut.padding is None else rows[~cut.padding]
    width = parameter.shape[1] // cut.block
    columns = columns if cut.block == 1 else columns[:: cut.block] // cut.block
    found = flat_numbers(rows, columns, len(parameter), width)
    if cut.padding is not None:
        found = found.view(len(rows), -1)[~cut.padding].flatten()
    return len(parameter) * width, found


class KeptStep:
    """Steps of an optimiser that see, of each cut parameter, only the part that is left.

    Parameters, gradients and optimiser state of the same shape are gathered before a step and written back after it,
    so the dropped part keeps its bits whatever momentum or weight decay do. The memory for that is kept: to ask for
    it anew at each step would cost more than the gathering.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple[nn.Parameter, str], Tensor] = {}

    def __call__(
        self,
        optimizer: Optimizer,
        numbers: Mapping[nn.Parameter, tuple[int, Tensor]],
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        """One step, by way of the scaler if there is one; `numbers` is what `kept_numbers` says."""
        stand_ins: list[tuple[dict, int, nn.Parameter, nn.Parameter]] = []
        for group in optimizer.param_groups:
            for place, parameter in enumerate(group["params"]):
                if parameter in numbers and parameter.grad is not None:
                    stand_in = self._gathered(optimizer, parameter, *numbers[parameter])
                    stand_ins.append((group, place, parameter, stand_in))
                    group["params"][place] = stand_in
        try:
            optimizer.step() if scaler is None else scaler.step(optimizer)
        finally:
            for group, place, parameter, stand_in in stand_ins:
                group["params"][place] = parameter
                _write_back(optimizer, parameter, stand_in, *numbers[parameter])

    def _gathered(self, optimizer: Optimizer, parameter: nn.Parameter, entries: int, numbers: Tensor) -> nn.Parameter:
        def part(name: str, value: Tensor) -> Tensor:
            table = _table(value, entries)
            size = len(numbers) * table.shape[1]
            memory = self._memory.get((parameter, name))
            if memory is None or memory.numel() < size or (memory.dtype, memory.device) != (table.dtype, table.device):
                memory = self._memory[parameter, name] = table.new_empty(size)
            found = memory[:size].view(len(numbers), -1)
            return torch.index_select(table, 0, numbers, out=found)

        stand_in = nn.Parameter(part("", parameter.detach()))
        stand_in.grad = part("grad", parameter.grad)
        if parameter in optimizer.state:
            optimizer.state[stand_in] = {
                key: part(key, value) if _follows(value, parameter) else value
                for key, value in optimizer.state[parameter].items()
            }
        return stand_in


def _table(value: Tensor, entries: int) -> Tensor:
    return value.reshape(entries, -1)


def _write_back(
    optimizer: Optimizer, parameter: nn.Parameter, stand_in: nn.Parameter, entries: int, numbers: Tensor
) -> None:
    with torch.no_grad():
        _copy_entries_(parameter, entries, numbers, stand_in.detach())
        for key, value in optimizer.state.pop(stand_in, {}).items():
            state = optimizer.state[parameter]
            if not _follows(value, stand_in):
                state[key] = value
                continue
            if not _follows(state.get(key), parameter):
                state[key] = torch.zeros_like(parameter, dtype=value.dtype)
            _copy_entries_(state[key], entries, numbers, value)


def _copy_entries_(full: Tensor, entries: int, numbers: Tensor, part: Tensor) -> None:
    table = _table(full, entries)
    table.index_copy_(0, numbers, part)
    if table.data_ptr() != full.data_ptr():  # channels-last weights cannot be viewed as a table
        full.copy_(table.reshape(full.shape))


def _follows(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape
