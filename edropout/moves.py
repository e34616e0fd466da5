"""What a descent drops at once: a unit, or a channel of a residual sum with the filters of all branches that make it.

A sum keeps every channel that one of its branches keeps. So dropping one filter of a branch frees little, and no single
unit frees the channel, with the columns of all layers that read it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from edropout.subnetworks.layout import Structure
from edropout.subnetworks.roles import CONVOLUTION_ROLES
from edropout.subnetworks.units import Units

# Channel c of what such a step makes is channel c of what it reads.
CARRYING = ("pointwise", "norm", "add", "flatten", "depthwise")


@dataclass(frozen=True)
class Stream:
    """Values that carry the same channels, such as a residual sum and its branches, and the units that are these.

    Attributes:
        width: Number of channels.
        writers: Layers whose filters are the channels.
        readers: Linear layers whose inputs are the channels.
        is_sum: True if the channels are sums of filters that can all be dropped.
    """

    width: int
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    is_sum: bool


class Moves:
    """All moves of a network, numbered: first each unit alone, then the channel of which it is the first filter.

    Attributes:
        count: Twice the number of units; a channel's move bears the number of its first filter, the others are void.
    """

    def __init__(self, structure: Structure, units: Units) -> None:
        self.units, self.count = units, 2 * units.num_units
        self.streams = streams(structure, units)
        numbers = units.split(torch.arange(units.num_units))
        self.channels: dict[int, tuple[int, ...]] = {}  # first filter -> filters
        for stream in self.streams:
            if stream.is_sum:
                for filters in torch.stack([numbers[layer] for layer in stream.writers], 1).tolist():
                    self.channels[filters[0]] = tuple(filters)
        pairs = [(unit, first) for first, filters in self.channels.items() for unit in filters]
        self._filters, self._firsts = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)

    def members(self, move: int) -> tuple[int, ...]:
        """The units that a move drops."""
        return (move,) if move < self.units.num_units else self.channels[move - self.units.num_units]

    def leave_layers(self, move: int, state: Tensor) -> bool:
        """True unless a move would drop the last unit of a layer."""
        left = state.clone()
        left[list(self.members(move))] = False
        return all(bool(kept.any()) for kept in self.units.split(left).values())

    def gradients(self, gates: Tensor) -> Tensor:
        """The derivative for each move's common gate, from that for each unit's: (num_units,) to (count,)."""
        channels = torch.zeros_like(gates)
        channels.index_add_(0, self._firsts.to(gates.device), gates[self._filters.to(gates.device)])
        return torch.cat([gates, channels])

    def classes(self, state: Tensor) -> Tensor:
        """Numbers that are equal for moves that free equally much, -1 for those that drop nothing: (count,) int64.

        Two units of a layer are alike if the same other layers keep their channel.

        Args:
            state: (num_units,) bool, on the CPU.
        """
        kept, found, unused = self.units.split(state), torch.full((self.count,), -1), 0
        numbers = self.units.split(torch.arange(self.units.num_units))
        for stream in self.streams:
            layers = (*stream.writers, *stream.readers)
            table = torch.stack([kept[layer].view(stream.width, -1).sum(1) for layer in layers])
            patterns, pattern = table.unique(dim=1, return_inverse=True)
            for layer in layers:
                area = len(numbers[layer]) // stream.width
                found[numbers[layer]] = torch.where(kept[layer], unused + pattern.repeat_interleave(area), -1)
                unused += patterns.shape[1]
            if stream.is_sum:
                places = self.units.num_units + numbers[stream.writers[0]]
                several = table[: len(stream.writers)].sum(0) > 1  # one filter that is left is its own move
                found[places] = torch.where(several, unused + pattern, -1)
                unused += patterns.shape[1]
        return found


def streams(structure: Structure, units: Units) -> list[Stream]:
    """The streams that hold units, in the order of the graph; norms that are units of their own belong to none."""
    steps = structure.graph.steps
    carried = {step.name: _carried(step.name, step.reads, structure.roles[step.name]) for step in steps}
    stream_of: dict[str, list[str]] = {}  # value -> names of the values of its stream, one list for all of them
    for step in steps:
        together = [step.name]
        for name in carried[step.name]:
            if stream_of[name] is not together:
                together = stream_of[name] + together
                stream_of.update(dict.fromkeys(together, together))
        stream_of[step.name] = together
    found = []
    for values in {id(values): values for values in stream_of.values()}.values():
        own = [step for step in steps if step.name in set(values)]
        writers = [step.target for step in own if structure.roles[step.name] in CONVOLUTION_ROLES]
        given = [step for step in own if not carried[step.name] and step.target not in writers]
        readers = [
            user.target
            for step in own
            for user in structure.users[step.name]
            if structure.roles[user.name] == "linear" and user.target in units.sizes
        ]
        switched = tuple(layer for layer in writers if layer in units.sizes)
        if switched or readers:
            is_sum = len(writers) > 1 and len(switched) == len(writers) and not given
            is_sum = is_sum and any(structure.roles[step.name] == "add" for step in own)
            width = min(structure.channels(name) for name in values if name in structure.graph.shapes)
            found.append(Stream(width, switched, tuple(dict.fromkeys(readers)), is_sum))
    return found


def _carried(name: str, reads: list[str], role: str) -> list[str]:
    """The values whose channels a step carries on."""
    if role not in CARRYING:
        return []
    return reads if role == "add" else reads[:1]


def any_of(members: Iterable[int], num_units: int) -> Tensor:
    """True for the units `members`: (num_units,) bool."""
    found = torch.zeros(num_units, dtype=torch.bool)
    found[list(members)] = True
    return found
