"""Which channels of every tensor and which rows and columns of every layer are left when units are dropped.

One long file: the plan, the structure that makes it and the walk that carries a state through the graph are one idea.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.subnetworks.graph import Graph, Step
from edropout.subnetworks.roles import CONVOLUTION_ROLES, is_last, is_norm, norm_partners, roles

# Filling a sum up with zeros saves moving its channels about, and costs convolutions of one pixel little.
WORTH_FILLING = 0.7

# None stands for all channels in their order, a LongTensor for the channels that are left; missing ones are zero.
Layout = Tensor | None


@dataclass(frozen=True)
class LayerCut:
    """What is left of one layer: row and column numbers of the original weight, None for all of them.

    `columns` of a grouped convolution is (groups, inputs per group), counted within the group. `padding` marks rows
    that only fill a width up and are zero: a group to the size of the largest one, which `select` leaves out again, or
    a layer to a multiple.
    `block` columns always stay together: those that one channel has after flattening.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None
    groups: int = 1
    padding: Tensor | None = None
    select: Tensor | None = None
    block: int = 1


@dataclass
class Plan:
    """How to execute a graph on what is left of it."""

    layouts: dict[str, Layout] = field(default_factory=dict)
    wanted: dict[tuple[str, str], Layout] = field(default_factory=dict)  # (reader, read) -> layout it is read in
    cuts: dict[str, LayerCut] = field(default_factory=dict)  # layer name -> what is left of it
    kept: dict[str, Tensor] = field(default_factory=dict)  # layer name -> bool, after removal of what nothing reads
    multiple_of: int = 1  # to which widths are filled up
    # (value, id of the layout it is read in) -> where its channels come from; filled while the plan is run
    positions: dict[tuple[str, int], Tensor | None] = field(default_factory=dict)


class Structure:
    """Roles and sizes of a graph, worked out once; `plan` then costs little for each choice of kept units."""

    def __init__(self, graph: Graph, modules: Mapping[str, nn.Module]) -> None:
        self.graph = graph
        self.roles = roles(graph, modules)
        self.users = graph.users()
        for step in graph.steps:
            module = modules[step.target] if step.kind == "module" else None
            if isinstance(module, _BatchNorm) and not is_norm(module):
                raise ValueError(f"nothing can be pruned exactly: batch norm '{step.target}' holds modules of its own")
        self._check_changes()
        self.partners = norm_partners(graph, modules)
        self.sizes: dict[str, int] = {}
        self.groups: dict[str, int] = {}
        for step in graph.steps:
            role = self.roles[step.name]
            if role in CONVOLUTION_ROLES:
                self.sizes[step.target] = modules[step.target].out_channels
                self.groups[step.target] = modules[step.target].groups
            elif role in ("linear", "linear_last"):
                self.sizes[step.target] = modules[step.target].in_features
        self.sources = {step.name: step.reads[0] for step in graph.steps if step.reads}
        self.partner_of = {norm: conv for conv, norms in self.partners.items() for norm in norms}
        self.apart = {name for step in graph.steps for name in self._apart(step)}
        single = {name for name in self.groups if set(modules[name].kernel_size) == {1}}
        self.fillable = {step.name for step in graph.steps if self.roles[step.name] == "add"
                         and (readers := self._convolutions(step)) and single.issuperset(readers)}  # fmt: skip

    def _check_changes(self) -> None:
        """Raises ValueError if a change in place is read under another name than that of the step that makes it."""
        number = {step.name: place for place, step in enumerate(self.graph.steps)}
        readers = [step for step in self.graph.steps if self.roles[step.name] != "size"]
        last_read = {name: number[step.name] for step in readers for name in step.reads}
        there: dict[int, list[str]] = {}  # address -> names of the values that lie there
        for step in self.graph.steps:
            for address in self.graph.memory[step.name]:
                there.setdefault(address, []).append(step.name)
        for changing, addresses in self.graph.in_place.items():
            before = [name for entry in addresses for name in there.get(entry, ()) if number[name] < number[changing]]
            if any(last_read.get(name, -1) > number[changing] for name in before):
                raise ValueError(
                    f"nothing can be pruned exactly: '{changing}' changes a value in place that others read"
                )

    def _apart(self, step: Step) -> list[str]:
        """A concatenation and the pointwise steps up to a convolution that alone reads it and costs less part by part.

        A convolution of concatenated parts is the sum of the convolutions of the parts.
        """
        if self.roles[step.name] != "concatenate" or any(len(self.users[name]) > 1 for name in step.reads):
            return []
        names = [step.name]
        while len(users := self.users[names[-1]]) == 1 and self.roles[users[0].name] == "pointwise":
            names.append(users[0].name)
        if len(users) != 1 or self.roles[users[0].name] != "convolution":
            return []
        return names if self.sizes[users[0].target] * len(step.reads) <= self.channels(step.name) else []

    def _convolutions(self, step: Step) -> set[str]:
        """Layers that read what `step` makes, pointwise steps in between included."""
        found: set[str] = set()
        for user in self.users[step.name]:
            if self.roles[user.name] == "pointwise":
                found |= self._convolutions(user)
            elif self.roles[user.name] in CONVOLUTION_ROLES:
                found.add(user.target)
        return found

    def channels(self, name: str) -> int:
        """Number of channels (or features) of the full tensor that step `name` makes."""
        return self.graph.shapes[name][-1 if is_last(self.roles[name]) else 1]

    def axis(self, reader: str, name: str) -> int:
        """The axis on which step `reader` reads the channels of what step `name` makes."""
        return -1 if is_last(self.roles[reader]) or is_last(self.roles[name]) else 1

    def plan(
        self,
        kept: Mapping[str, Tensor],
        *,
        dense: frozenset[str] = frozenset(),
        filled: bool = False,
        multiple_of: int = 1,
    ) -> Plan:
        """Works out what is left of the graph under `kept` (layer -> bool; layers that are missing keep all).

        Args:
            kept: Units of each layer, True = kept.
            dense: Names of steps that keep all channels even where nothing reads them.
            filled: True for a plan to run by: sums may hold zeros for missing channels, where that is faster, and their
                readers all columns. What is left of a layer is said by a plan that is not filled.
            multiple_of: Fill the widths of layers and of sums with units that are zero, so that they are multiples of
                it as far as there are units; `kept` of the plan counts those.

        Raises:
            ValueError: A layer is unknown, has another size, keeps no unit, cannot be cut exactly; or no such multiple.
        """
        if not isinstance(multiple_of, int) or multiple_of < 1:
            raise ValueError(f"multiple_of must be a whole number from 1 on, not {multiple_of!r}")
        self.check(kept)
        needs = self._needs(kept, dense)
        plan, fillable = Plan(multiple_of=multiple_of), self.fillable if filled else set()
        real = self.plan(kept, dense=dense) if multiple_of > 1 else plan
        for step in self.graph.steps:
            _Cutter(self, plan, needs, kept, fillable, real).cut(step)
        return plan

    def check(self, kept: Mapping[str, Tensor]) -> None:
        """Raises ValueError, naming the layer, if `kept` cannot be applied."""
        for layer, mask in kept.items():
            if layer not in self.sizes:
                raise ValueError(f"layer '{layer}' cannot be cut exactly: it is no convolution or linear layer "
                                 "that is called once with a weight of its own")  # fmt: skip
            if mask.dtype != torch.bool or mask.shape != (self.sizes[layer],):
                raise ValueError(f"kept['{layer}'] must be {self.sizes[layer]} booleans, "
                                 f"not {tuple(mask.shape)} {mask.dtype}")  # fmt: skip
            if not mask.any():
                raise ValueError(f"layer '{layer}' keeps no unit: keep at least one")

    def _needs(self, kept: Mapping[str, Tensor], dense: frozenset[str]) -> dict[str, Tensor | None]:
        """Channels of each tensor that are read by anyone (bool over channels), None for all: backwards."""
        needs: dict[str, Tensor | None] = {}
        for step in reversed(self.graph.steps):
            need: Tensor | None = None
            users = [] if step.name in dense else self.users[step.name]
            for user in users:
                asked = self._asked(step, user, needs, kept)
                if asked is None:
                    need = None
                    break
                need = asked if need is None else need | asked
            needs[step.name] = need
        return needs

    def _asked(self, step: Step, user: Step, needs: Mapping, kept: Mapping[str, Tensor]) -> Tensor | None:
        """Channels of `step` that `user` reads, None for all."""
        role, need = self.roles[user.name].removesuffix("_last"), needs[user.name]
        if len(self.graph.shapes.get(step.name, ())) < 2:
            return None
        if is_last(self.roles[user.name]) and not is_last(self.roles[step.name]):
            return None  # what is unknown has all channels, on whichever axis
        if role == "linear":
            return kept.get(user.target)
        if role == "depthwise":
            mask = kept.get(user.target)
            return mask if need is None else need if mask is None else mask & need
        if need is None or role not in ("pointwise", "norm", "flatten", "add", "multiply", "concatenate"):
            return torch.zeros(self.channels(step.name), dtype=torch.bool) if role == "size" else None
        if role == "flatten":
            return need.reshape(self.channels(step.name), -1).any(1)
        if role == "concatenate":
            return self._asked_by_concatenation(step, user, need)
        return need

    def _asked_by_concatenation(self, step: Step, user: Step, need: Tensor) -> Tensor:
        asked = torch.zeros(self.channels(step.name), dtype=torch.bool)
        start = 0
        for ref in user.args[0]:
            width = self.channels(ref.name)
            if ref.name == step.name:
                asked |= need[start : start + width]
            start += width
        return asked


class _Cutter:
    """Carries the layouts forward through one step after the other."""

    def __init__(
        self,
        structure: Structure,
        plan: Plan,
        needs: Mapping,
        kept: Mapping[str, Tensor],
        fillable: set[str],
        real: Plan,
    ) -> None:
        self.structure, self.plan, self.needs, self.kept, self.fillable = structure, plan, needs, kept, fillable
        self.multiple_of, self.real = plan.multiple_of, real

    def cut(self, step: Step) -> None:
        """Decides the layouts that `step` reads and makes, and what is left of its layer."""
        role = self.structure.roles[step.name].removesuffix("_last")
        layouts = [self.plan.layouts.get(name) for name in step.reads]
        if role in CONVOLUTION_ROLES:
            made = getattr(self, f"_{role}")(step, layouts[0])
        elif role == "linear":
            made = self._linear(step, layouts[0])
        elif role == "norm":
            zeros = self._zeros(step.reads[0])
            padding = None if zeros is None else zeros if layouts[0] is None else zeros[layouts[0]]
            self.plan.cuts[step.target] = LayerCut(rows=layouts[0], padding=padding)
            made = layouts[0]
        elif role in ("pointwise", "size"):
            made = layouts[0]
        elif role == "flatten":
            made = self._flatten(step, layouts[0])
        elif role in ("add", "multiply", "concatenate"):
            made = getattr(self, f"_{role}")(step, layouts)
        else:
            for name in step.reads:
                self.plan.wanted[step.name, name] = None
            made = None
        self.plan.layouts[step.name] = made

    def _live(self, step: Step) -> Tensor:
        """Kept filters that something reads; all kept ones where nothing does, so that the layer exists."""
        size = self.structure.sizes[step.target]
        kept = self.kept.get(step.target, torch.ones(size, dtype=torch.bool))
        need = self.needs[step.name]
        live = kept if need is None or not (kept & need).any() else kept & need
        self.plan.kept[step.target] = live
        return live

    def _zeros(self, name: str) -> Tensor | None:
        """Channels of what a step makes that are there as zeros alone, to fill a width up; None for none."""
        real, held = self.real.layouts[name], self.plan.layouts[name]
        if self.real is self.plan or real is None:
            return None
        zeros = torch.ones(self.structure.channels(name), dtype=torch.bool)
        if held is not None:
            zeros = torch.zeros_like(zeros).index_fill_(0, held, True)
        return zeros.index_fill_(0, real, False)

    def _wide(self, layer: str, live: Tensor) -> Tensor:
        """The units that are there: those that live, and as many zeros as fill the width up."""
        self.plan.kept[layer] = widened(live, self.multiple_of)
        return self.plan.kept[layer]

    def _convolution(self, step: Step, layout: Layout) -> Layout:
        live = self._live(step)
        wide = self._wide(step.target, live)
        rows = _layout(wide)
        self.plan.cuts[step.target] = LayerCut(rows=rows, columns=layout, padding=_padding(live, wide))
        return rows

    def _depthwise(self, step: Step, layout: Layout) -> Layout:
        live = self._live(step)
        zeros = self._zeros(step.reads[0])
        wide = self._wide(step.target, live if zeros is None else live | zeros)
        rows = _layout(wide)
        self.plan.wanted[step.name, step.reads[0]] = rows
        self.plan.cuts[step.target] = LayerCut(rows=rows, groups=int(wide.sum()), padding=_padding(live, wide))
        return rows

    def _grouped(self, step: Step, layout: Layout) -> Layout:
        live = self._live(step)
        groups = self.structure.groups[step.target]
        inputs = torch.ones(self.structure.channels(step.reads[0]), dtype=torch.bool)
        if layout is not None:
            inputs = torch.zeros_like(inputs).index_fill_(0, layout, True)
        if bool(live.all()) and bool(inputs.all()):
            self.plan.cuts[step.target] = LayerCut(groups=groups)
            return None
        by_row, by_column = live.reshape(groups, -1), inputs.reshape(groups, -1)
        alive = by_row.any(1).nonzero().squeeze(1)
        rows = _fill(by_row[alive]) + alive[:, None] * by_row.shape[1]
        columns = _fill(by_column[alive])
        flat = rows.flatten()
        padding = ~live[flat]
        self.plan.wanted[step.name, step.reads[0]] = (columns + alive[:, None] * by_column.shape[1]).flatten()
        select = (~padding).nonzero().squeeze(1) if bool(padding.any()) else None
        self.plan.cuts[step.target] = LayerCut(flat, columns, len(alive), padding, select)
        return _layout(live)

    def _linear(self, step: Step, layout: Layout) -> Layout:
        size = self.structure.sizes[step.target]
        columns = self.kept.get(step.target, torch.ones(size, dtype=torch.bool))
        if layout is not None:
            there = torch.zeros(size, dtype=torch.bool).index_fill_(0, layout, True)
            columns = columns & there if (columns & there).any() else columns
        zeros = self._zeros(step.reads[0])
        columns = columns if zeros is None else columns | zeros  # reading them costs less than leaving them out
        self.plan.kept[step.target] = columns
        self.plan.wanted[step.name, step.reads[0]] = _layout(columns)
        need, rows, padding = self.needs[step.name], None, None
        if need is not None and need.any():
            wide = widened(need, self.multiple_of)
            rows, padding = _layout(wide), _padding(need, wide)
        block = self._block(step, _layout(columns))
        self.plan.cuts[step.target] = LayerCut(rows, _layout(columns), padding=padding, block=block)
        return rows

    def _block(self, step: Step, columns: Layout) -> int:
        source = step.reads[0]
        while self.structure.roles[source] == "pointwise":
            source = self.structure.sources[source]
        if columns is None or self.structure.roles[source] != "flatten":
            return 1
        area = self.structure.channels(source) // self.structure.channels(self.structure.sources[source])
        if len(columns) % area:
            return 1
        runs = columns.view(-1, area)
        together = (runs[:, 0] % area == 0).all() and (runs - runs[:, :1] == torch.arange(area)).all()
        return area if together else 1

    def _flatten(self, step: Step, layout: Layout) -> Layout:
        if layout is None:
            return None
        before = self.structure.channels(step.reads[0])
        area = self.structure.channels(step.name) // before
        return (layout[:, None] * area + torch.arange(area)).flatten()

    def _add(self, step: Step, layouts: list[Layout]) -> Layout:
        if any(layout is None for layout in layouts):
            made = None
        else:
            made = torch.cat(layouts).unique()
            if self.multiple_of > 1:
                union = torch.zeros(self.structure.channels(step.name), dtype=torch.bool).index_fill_(0, made, True)
                made = widened(union, self.multiple_of).nonzero().squeeze(1)
            least = WORTH_FILLING if step.name in self.fillable else 1.0
            made = None if len(made) >= least * self.structure.channels(step.name) else made
        for name in step.reads:
            self.plan.wanted[step.name, name] = made
        return made

    def _multiply(self, step: Step, layouts: list[Layout]) -> Layout:
        present = [layout for layout in layouts if layout is not None]
        made = present[0] if present else None
        if len(present) == 2:
            common = present[0][torch.isin(present[0], present[1])]
            made = common if len(common) else present[0]
        for name in step.reads:
            self.plan.wanted[step.name, name] = made
        return made

    def _concatenate(self, step: Step, layouts: list[Layout]) -> Layout:
        by_name = dict(zip(step.reads, layouts, strict=True))
        if all(layout is None for layout in layouts):
            return None
        parts, start = [], 0
        for ref in step.args[0]:
            width, layout = self.structure.channels(ref.name), by_name[ref.name]
            parts.append(start + (torch.arange(width) if layout is None else layout))
            start += width
        return torch.cat(parts)


def _layout(mask: Tensor) -> Layout:
    return None if bool(mask.all()) else mask.nonzero().squeeze(1)


def widened(mask: Tensor, multiple_of: int) -> Tensor:
    """True for as many more units, the first that are missing, as make their number a multiple or all of them."""
    missing = (~mask).nonzero().squeeze(1)
    return mask.index_fill(0, missing[: -int(mask.sum()) % multiple_of], True)


def _padding(live: Tensor, wide: Tensor) -> Tensor | None:
    """Which rows of those that are there are zero; None for none."""
    padding = ~live[wide]
    return padding if bool(padding.any()) else None


def _fill(mask: Tensor) -> Tensor:
    """Numbers of the true entries of each row, filled up with false ones to equal counts, ascending: (rows, count)."""
    count = max(int(mask.sum(1).max()), 1)
    chosen = mask.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :count]
    return chosen.sort(dim=1).values


def source_positions(held: Layout, wanted: Layout, channels: int) -> Tensor | None:
    """For each wanted channel its position in a tensor held as `held`, or the position after the last for a zero.

    Returns None if nothing has to move.
    """
    held = torch.arange(channels) if held is None else held
    wanted = torch.arange(channels) if wanted is None else wanted
    if torch.equal(held, wanted):
        return None
    place = torch.full((channels,), len(held))
    place[held] = torch.arange(len(held))
    return place[wanted]
