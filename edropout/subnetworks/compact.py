"""Runs the sub-network of a state on cut weights, for energies (no gradient) and for the training step."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.subnetworks.channels import add_channels, cut_vector, cut_weight, take_channels
from edropout.subnetworks.graph import Step, addresses, caller, substitute
from edropout.subnetworks.layout import LayerCut, Layout, Plan, Structure, source_positions
from edropout.subnetworks.norm import groups_of_pixels, normalise, normalise_by_batch_
from edropout.subnetworks.own import Own
from edropout.subnetworks.roles import CONVOLUTION_ROLES

# Cutting the weight of a large linear layer costs passes over memory, which only pay from about this batch on.
LARGE_LINEAR = 1_000_000
LINEAR_CUT_BATCH = 64


class CompactRunner:
    """Executes a graph under a plan without building modules; weights stay where they are and are gathered on the way.

    Args:
        model: Owner of the weights.
        modules: Modules that the graph calls.
        structure: The analysed graph.
        candidate: True: energies; batch norm uses the statistics of the batch and leaves the running ones alone. The
            caller has put all other modules into eval mode. False: ordinary training with gradients; running statistics
            change with `update_statistics`.
        trained_norms: Names of the batch norms that are in train mode.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, nn.Module],
        structure: Structure,
        *,
        candidate: bool,
        trained_norms: frozenset[str] = frozenset(),
    ) -> None:
        self.modules, self.structure, self.candidate = modules, structure, candidate
        self.trained_norms = trained_norms
        self._statistics: dict[_BatchNorm, tuple[Tensor | None, Tensor, Tensor, int]] = {}
        self.ready: Mapping[str, Tensor] = {}  # step -> its value with all channels, computed for all candidates
        self.own: Mapping[nn.Parameter, Own] = {}  # of a final state
        self.cast: Mapping[nn.Parameter, Tensor] = {}  # as the layers read them under autocast
        self.ordinary = caller(model, modules)
        self.steps = structure.graph.steps
        self.given = {step.name for step in self.steps if step.kind in ("input", "attribute")}
        self.last = {name: step.name for step in self.steps for name in step.reads}

    def run(self, steps: list[Step], values: dict[str, Any], plan: Plan, *, own: frozenset[str] | None = None) -> Any:
        """Carries out `steps`, reading and extending `values`; returns the value of the last step.

        Args:
            steps: Part of the graph, in order.
            values: Values of the earlier steps; entries are removed after their last reader.
            plan: What is left of each layer.
            own: Names of the values that may be overwritten or removed; None for those that this call computes.
        """
        made = ({step.name for step in steps} if own is None else own) - self.given
        value = None
        for step in steps:
            if step.kind == "input":
                value = values[step.name]
            elif step.name in self.ready:
                layout = plan.layouts[step.name]
                value = (
                    self.ready[step.name].clone() if layout is None else take_channels(self.ready[step.name], layout)
                )
            else:
                value = self._step(step, values, plan, made)
            values[step.name] = value
            for name in step.reads if step.name not in self.ready else ():
                if name in made and self.last[name] == step.name:
                    del values[name]
        return value

    def _step(self, step: Step, values: dict[str, Any], plan: Plan, made: set[str] | frozenset[str]) -> Any:
        role = self.structure.roles[step.name]
        if role == "add":
            return self._add(step, values, plan, made)
        read = {name: self._read(step, name, values, plan) for name in step.reads}
        if role in CONVOLUTION_ROLES:
            return self._convolve(step, read[step.reads[0]], plan)
        if role == "norm":
            return self._batch_norm(step, read[step.reads[0]], plan.cuts[step.target], made)
        if role in ("linear", "linear_last"):
            return self._linear(step, read[step.reads[0]], plan)
        if role == "flatten":
            return torch.flatten(read[step.reads[0]], 1)
        if self.candidate and step.name in self.structure.apart:
            if role == "concatenate":
                return list(read.values())
            return [self._carry_out(step, {step.reads[0]: part}) for part in read[step.reads[0]]]
        if self.candidate and step.name in self.structure.graph.in_place:
            read = {name: self._owned(value, values, made) for name, value in read.items()}
        if step.kind == "module" and isinstance(self.modules[step.target], _BatchNorm):
            return self._batch_norm(step, read[step.reads[0]], None, made)
        return self._carry_out(step, read)

    def _carry_out(self, step: Step, read: Mapping[str, Any]) -> Any:
        """What the network's own code makes of these values."""
        args, kwargs = substitute((step.args, dict(step.kwargs)), lambda ref: read[ref.name])
        if step.kind == "output":
            return args[0]
        if step.target == "view" or step.target in self.structure.graph.whole:
            # The network's own code need not know that its values are channels-last here.
            args = tuple(arg.contiguous() if isinstance(arg, Tensor) and arg.ndim == 4 else arg for arg in args)
        return self.ordinary(step, args, kwargs)

    def _left(self, parameter: nn.Parameter | None, cut: LayerCut) -> Tensor | None:
        """What a cut leaves of a parameter."""
        if parameter is None:
            return None
        found = self.own[parameter].under(cut) if parameter in self.own else None
        if found is not None:
            return found
        value = self.cast.get(parameter, parameter)
        return cut_weight(value, cut) if value.ndim > 1 else cut_vector(value, cut)

    def _read(self, step: Step, name: str, values: Mapping[str, Any], plan: Plan) -> Any:
        """The value of `name` in the layout in which `step` wants it."""
        value = values[name]
        if (step.name, name) not in plan.wanted or not isinstance(value, Tensor):
            return value
        axis = self.structure.axis(step.name, name)
        positions = self._positions(plan, name, plan.wanted[step.name, name], axis)
        return value if positions is None else take_channels(value, positions, axis)

    def _owned(self, value: Any, values: Mapping[str, Any], made: set[str] | frozenset[str]) -> Any:
        """Copies what a step that works in place would change for others: values that this run did not make."""
        place = addresses(value) if isinstance(value, Tensor) else set()
        return value.clone() if any(place & addresses(values[name]) for name in values.keys() - made) else value

    def _positions(self, plan: Plan, name: str, wanted: Layout, axis: int = 1) -> Tensor | None:
        held = plan.layouts[name]
        if held is wanted:
            return None
        key = name, id(wanted)
        if key not in plan.positions:
            plan.positions[key] = source_positions(held, wanted, self.structure.graph.shapes[name][axis])
        return plan.positions[key]

    def _add(self, step: Step, values: Mapping[str, Any], plan: Plan, made: set[str] | frozenset[str]) -> Tensor:
        """Adds two branches; the narrower one is added into the channels of the wider one."""
        one, other = step.reads
        union = plan.layouts[step.name]
        if self._positions(plan, one, union) is not None:
            one, other = other, one
        full = self._read(step, one, values, plan)
        narrow = self._positions(plan, other, union)
        if narrow is None:
            return operator.add(full, values[other])
        if full.shape[2:] != values[other].shape[2:] or len(full) != len(values[other]):
            return operator.add(full, take_channels(values[other], narrow))  # broadcast
        held = values[other].shape[1]
        places = (narrow < held).nonzero().squeeze(1)
        part = values[other] if len(places) == held else take_channels(values[other], narrow[places])
        fresh = full is not values[one]
        alone = sum(bool(addresses(full) & addresses(value)) for value in values.values()) == 1
        unread = self.candidate and alone and one in made and self.last[one] == step.name
        return add_channels(full, part, places, in_place=fresh or unread)

    def _convolve(self, step: Step, x: Tensor | list[Tensor], plan: Plan) -> Tensor:
        """Convolves with what is left of the weight; parts of a concatenation that was not carried out add up."""
        module, cut = self.modules[step.target], plan.cuts[step.target]
        weight, bias = self._left(module.weight, cut), self._left(module.bias, cut)
        if isinstance(x, list):
            weights = weight.split([part.shape[1] for part in x], dim=1)
            y = _convolution(module, x[0], weights[0], bias, cut.groups)
            for part, columns in zip(x[1:], weights[1:], strict=True):
                y += _convolution(module, part, columns, None, cut.groups)
        else:
            y = _convolution(module, x, weight, bias, cut.groups)
        return y if cut.select is None else take_channels(y, cut.select)

    def _linear(self, step: Step, x: Tensor, plan: Plan) -> Tensor:
        """Cuts the weight, or leaves it whole and fills the input with zeros, whichever costs less."""
        module, cut = self.modules[step.target], plan.cuts[step.target]
        gathered = module.weight in self.own
        if gathered or x.ndim > 2 or len(x) >= LINEAR_CUT_BATCH or module.weight.numel() < LARGE_LINEAR:
            return F.linear(x, self._left(module.weight, cut), self._left(module.bias, cut))
        if cut.columns is not None:
            x = x.new_zeros(len(x), module.in_features).index_add_(1, cut.columns.to(x.device), x)
        y = F.linear(x, module.weight, module.bias)
        return y if cut.rows is None else take_channels(y, cut.rows)

    def _batch_norm(self, step: Step, x: Tensor, cut: Any, made: set[str] | frozenset[str]) -> Tensor:
        """Batch norm on the channels that are left; an activation that belongs to the module follows."""
        name, source = step.target, step.reads[0]
        module = self.modules[name]
        pick = (lambda vector: vector) if cut is None else (lambda vector: cut_vector(vector, cut))
        weight, bias = (p if cut is None else self._left(p, cut) for p in (module.weight, module.bias))
        by_batch = (name in self.trained_norms if self.candidate else module.training) or module.running_mean is None
        if self.candidate and by_batch and self._only_reader(step, source, made) and groups_of_pixels(x, weight, bias):
            y = normalise_by_batch_(x, weight, bias, module.eps)
        elif self.candidate:
            mean = None if by_batch else pick(module.running_mean)
            variance = None if by_batch else pick(module.running_var)
            y = normalise(x, mean, variance, weight, bias, by_batch, 0.0, module.eps)
        else:
            y = self._train_norm(module, x, weight, bias, cut, by_batch)
        for child in module.children():
            y = child(y)
        return y

    def _only_reader(self, step: Step, source: str, made: set[str] | frozenset[str]) -> bool:
        """True if `source` is a fresh tensor of this run that nobody but `step` reads."""
        fresh = self.structure.roles[source] in CONVOLUTION_ROLES
        return fresh and source in made and self.structure.users[source] == [step]

    def _train_norm(
        self, module: _BatchNorm, x: Tensor, weight: Tensor, bias: Tensor, cut: LayerCut | None, by_batch: bool
    ) -> Tensor:
        if module.running_mean is None:
            return normalise(x, None, None, weight, bias, True, 0.0, module.eps)
        rows = None if cut is None else cut.rows
        mean, variance = (
            buffer if rows is None else buffer.index_select(0, rows.to(buffer.device))
            for buffer in (module.running_mean, module.running_var)
        )
        if not by_batch:
            return normalise(x, mean, variance, weight, bias, False, 0.0, module.eps)
        count = 0
        if module in self._statistics:  # a module that is called again goes on where its first call ended
            _, mean, variance, count = self._statistics[module]
        elif rows is None:
            mean, variance = mean.clone(), variance.clone()
        count += 1
        factor = module.momentum
        if factor is None:
            factor = 1.0 / (float(module.num_batches_tracked) + count)
        y = normalise(x, mean, variance, weight, bias, True, factor, module.eps)
        self._statistics[module] = rows, mean, variance, count
        return y

    def update_statistics(self) -> None:
        """Gives the batch norms the running statistics that training runs since the last call have found."""
        with torch.no_grad():
            for module, (rows, mean, variance, count) in self._statistics.items():
                module.num_batches_tracked.add_(count)
                for buffer, value in ((module.running_mean, mean), (module.running_var, variance)):
                    if rows is None:
                        buffer.copy_(value)
                    else:
                        buffer.index_copy_(0, rows.to(buffer.device), value)
        self.forget_statistics()

    def forget_statistics(self) -> None:
        """Drops what `update_statistics` would write."""
        self._statistics.clear()


def _convolution(module: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """A convolution with the geometry of `module`."""
    padding = module.padding
    if module.padding_mode != "zeros":
        x = F.pad(x, module._reversed_padding_repeated_twice, mode=module.padding_mode)
        padding = 0
    convolve = (F.conv1d, F.conv2d, F.conv3d)[weight.ndim - 3]
    return convolve(x, weight, bias, module.stride, padding, module.dilation, groups)
