"""The physically smaller network: layers cut to size, and index steps where branches hold different channels."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks.channels import take_channels
from edropout.subnetworks.graph import Graph, Ref, Step, caller, execute, expect, substitute
from edropout.subnetworks.layout import LayerCut, Plan, Structure, source_positions


class Reindex(nn.Module):
    """Brings the channels of a tensor into another selection and order; missing ones become zero.

    Args:
        positions: (wanted,) position of each wanted channel; the position after the last stands for zero.
        held: Number of channels of the tensor that comes in.
        axis: Of the channels, 1 or -1.
    """

    def __init__(self, positions: Tensor, held: int, axis: int = 1) -> None:
        super().__init__()
        self.pads, self.axis = bool((positions == held).any()), axis
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, held, ...) to (batch, wanted, ...), or (batch, ..., held) to (batch, ..., wanted)."""
        last = x.device.type == "cpu" and x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        if last and self.axis == 1 and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            return take_channels(x, self.positions)  # which is faster there, and stays channels-last
        if self.pads:
            if torch.onnx.is_in_onnx_export():  # behind a pad, the exporter loses sight of sizes
                x = torch.cat([x, torch.zeros_like(x.narrow(self.axis, 0, 1))], self.axis)
            else:
                x = nn.functional.pad(x, ([0, 0] * (x.ndim - 2) if self.axis == 1 else []) + [0, 1])
        return x.index_select(self.axis, self.positions)


class SmallerNetwork(nn.Module):
    """What `prune` returns: the original layers under their names, cut to size, called in the original order.

    Attributes:
        kept: layer -> bool over the units of the original architecture, without the units that nothing reads.
        size_read_for: Sizes of an input, without the batch, for which alone it was read; None for any.
    """

    def __init__(self, structure: Structure, plan: Plan, steps: list[Step]) -> None:
        super().__init__()
        self.structure, self.plan, self.steps = structure, plan, Graph(steps, modes=structure.graph.modes)
        self.kept, self.size_read_for = plan.kept, structure.graph.assumed

    def add(self, path: str, module: nn.Module) -> None:
        """Registers `module` under its dotted path."""
        prefix, _, leaf = path.rpartition(".")
        self._container(prefix).add_module(leaf, module)

    def copy_attribute(self, path: str, owner: nn.Module, copied: dict[int, Any]) -> None:
        """Registers a copy of the parameter or buffer that `owner` has under a dotted path.

        Args:
            path: Its name.
            owner: The network it is copied from.
            copied: What copy.deepcopy has copied before, so that what was shared stays shared.
        """
        prefix, _, leaf = path.rpartition(".")
        source, container = owner.get_submodule(prefix), self._container(prefix)
        value = copy.deepcopy(getattr(source, leaf), copied)
        if leaf in source._buffers:
            container.register_buffer(leaf, value, persistent=leaf not in source._non_persistent_buffers_set)
        else:
            setattr(container, leaf, value)

    def _container(self, path: str) -> nn.Module:
        owner: nn.Module = self
        for part in path.split(".") if path else []:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner._modules[part]
        return owner

    def forward(self, x: Tensor) -> Any:
        """Computes what the original network computes when the dropped units are zero.

        Raises:
            ValueError: The network was read for inputs of another size.
        """
        if isinstance(x, Tensor) and self.size_read_for not in (None, x.shape[1:]):
            raise ValueError(f"this network asks for sizes and was pruned for inputs of {tuple(self.size_read_for)}, "
                             f"not {tuple(x.shape[1:])}: prune it with an example of that size")  # fmt: skip
        return execute(self.steps.running(self), caller(self), x)


def smaller_steps(structure: Structure, plan: Plan) -> tuple[list[Step], dict[str, Reindex]]:
    """Rewrites the steps for a plan: reindexing where layouts differ, flattening instead of views of fixed size.

    Returns:
        The steps, and the reindexing modules that they call by name.
    """
    steps: list[Step] = []
    reindexes: dict[str, Reindex] = {}

    def insert(name: str, read: str, positions: Tensor, held: int, axis: int = 1) -> str:
        module = f"reindex_{len(reindexes)}"
        reindexes[module] = Reindex(positions, held, axis)
        steps.append(Step(name, "module", module, (Ref(read),), {}))
        return name

    for step in structure.graph.steps:
        if structure.roles[step.name] == "flatten":
            step = replace(step, kind="function", target=torch.flatten, args=(Ref(step.reads[0]), 1), kwargs={})
        renamed = {}
        for read in step.reads:
            held = plan.layouts[read]
            if (step.name, read) not in plan.wanted or read not in structure.graph.shapes:
                continue
            if held is None and plan.wanted[step.name, read] is None:
                continue
            axis = structure.axis(step.name, read)
            channels = structure.graph.shapes[read][axis]
            positions = source_positions(held, plan.wanted[step.name, read], channels)
            if positions is not None:
                count = channels if held is None else len(held)
                renamed[read] = insert(f"{step.name}_reads_{read}", read, positions, count, axis)
        args, kwargs = substitute(
            (step.args, dict(step.kwargs)), lambda ref, renamed=renamed: Ref(renamed.get(ref.name, ref.name))
        )
        steps.append(replace(step, args=args, kwargs=kwargs))
        select = plan.cuts[step.target].select if step.kind == "module" and step.target in plan.cuts else None
        if select is not None:
            steps[-1] = replace(steps[-1], name=f"{step.name}_padded")
            insert(step.name, f"{step.name}_padded", select, len(plan.cuts[step.target].rows))
    return _without_unread(steps, structure.graph.in_place.keys()), reindexes


def _without_unread(steps: list[Step], changing: Collection[str]) -> list[Step]:
    """Drops steps without side effects that nothing reads any more (sizes that a view had asked for)."""
    read: set[str] = set()
    left = []
    for step in reversed(steps):
        acts = step.name in changing or step.kind in ("input", "output", "module") or step.target is expect
        if step.name in read or acts:
            left.append(step)
            read.update(step.reads)
    return left[::-1]


def cut_module(module: nn.Module, cut: LayerCut) -> nn.Module:
    """Returns a copy of a full convolution, linear layer or batch norm with only the rows and columns of `cut`."""
    smaller = _shallow_copy(module)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            value = cut_tensor(parameter.detach(), cut)
            smaller._parameters[name] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            smaller._buffers[name] = cut_tensor(buffer, cut) if buffer.ndim else buffer.clone()
    return _set_sizes(smaller, cut.groups)


def inflate_module(module: nn.Module, cut: LayerCut, rows: int, columns: int, groups: int) -> nn.Module:
    """Undoes `cut_module`: a full layer of `rows` x `columns` per group with zeros where nothing is left."""
    full = _shallow_copy(module)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            value = _inflate(parameter.detach(), cut, rows, columns)
            full._parameters[name] = nn.Parameter(value, requires_grad=parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            full._buffers[name] = _inflate(buffer, cut, rows, columns) if buffer.ndim else buffer.clone()
    return _set_sizes(full, groups)


def _shallow_copy(module: nn.Module) -> nn.Module:
    """A copy with dictionaries of its own, so that no large weight is copied before it is cut."""
    result = copy.copy(module)
    result._parameters, result._buffers = dict(module._parameters), dict(module._buffers)
    result._modules = {name: copy.deepcopy(child) for name, child in module._modules.items()}
    return result


def _set_sizes(module: nn.Module, groups: int) -> nn.Module:
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif hasattr(module, "groups"):
        module.out_channels, module.groups = module.weight.shape[0], groups
        module.in_channels = module.weight.shape[1] * groups
    else:
        module.num_features = len(module.weight)
    return module


def cut_tensor(value: Tensor, cut: LayerCut) -> Tensor:
    """Cuts a weight, bias or running statistic; rows that only fill up a group become zero. Never aliases `value`."""
    rows, columns = cut.rows, cut.columns
    result = value.clone() if rows is None else value.index_select(0, rows.to(value.device))
    if columns is not None and value.ndim > 1:
        numbers, per_row = _column_numbers(cut, len(result), value.device)
        result = result[numbers, per_row] if columns.ndim == 2 else result.index_select(1, per_row)
    if cut.padding is not None:
        result.index_fill_(0, cut.padding.nonzero().squeeze(1).to(value.device), 0)
    return result


def _inflate(value: Tensor, cut: LayerCut, rows: int, columns: int) -> Tensor:
    if cut.columns is not None and value.ndim > 1:
        numbers, per_row = _column_numbers(cut, len(value), value.device)
        wide = value.new_zeros(len(value), columns, *value.shape[2:])
        wide[numbers, per_row] = value
        value = wide
    if cut.rows is None:
        return value.clone()
    return value.new_zeros(rows, *value.shape[1:]).index_copy_(0, cut.rows.to(value.device), value)


def _column_numbers(cut: LayerCut, rows: int, device: torch.device) -> tuple[Tensor | slice, Tensor]:
    """Row and column numbers that pick the columns of each row: those of its group."""
    if cut.columns.ndim == 1:
        return slice(None), cut.columns.to(device)
    per_row = cut.columns.repeat_interleave(rows // len(cut.columns), 0).to(device)
    return torch.arange(rows, device=device)[:, None], per_row
