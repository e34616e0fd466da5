"""Which convolutions of a network a structured method may prune, and who reads their filters."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.subnetworks.graph import Step
from edropout.subnetworks.observe import follow
from edropout.subnetworks.reach import reaching_output, steps_with_weights
from edropout.subnetworks.roles import ADDITIONS, roles


@dataclass(frozen=True)
class Reader:
    """A layer that reads a convolution's filters, through norms, activations and pooling at most.

    Attributes:
        name: The reading convolution or linear layer.
        start: Its input channel (or feature) that holds the first filter.
        area: Inputs per filter: 1, or the pixels of a feature map that was flattened.
    """

    name: str
    start: int = 0
    area: int = 1


@dataclass(frozen=True)
class Layer:
    """One convolution.

    Attributes:
        name: Its dotted name.
        width: Number of filters.
        number: Position in execution order as pruning papers count it, from 1; shortcut convolutions count 0.
        stem: Reads the image.
        output: Makes the logits, without another layer with weights in between.
        norms: The batch norms that read it directly.
        readers: Who reads its filters; empty unless `inner`.
        inner: Only convolutions and linear layers read it: no sum, product, group or output fixes its width. The stem
            of a residual network belongs to its first sum, also where a projection lies in between (ResNet-50).
    """

    name: str
    width: int
    number: int
    stem: bool
    output: bool
    norms: tuple[str, ...]
    readers: tuple[Reader, ...]

    @property
    def inner(self) -> bool:
        return bool(self.readers)


class NothingToPrune(ValueError):
    """A network in which a method finds no layer that it may prune."""


def convolutions(model: nn.Module, example: Tensor) -> list[Layer]:
    """The convolutions that the network calls once, in execution order.

    Args:
        model: The network; it is run in evaluation mode on the first sample and left as it was.
        example: (batch, channels, height, width) on the network's device.

    Raises:
        ValueError: torch.fx cannot follow the network.
    """
    network = _Followed(model, example)
    calls = [step for step in network.steps.values() if network.is_a(step, nn.Conv2d)]
    targets = [step.target for step in calls]
    residual = any(step.target in (*ADDITIONS, "add", "add_") and len(step.reads) == 2
                   for step in network.steps.values())  # fmt: skip
    found, number = [], 0
    for step in calls:
        shortcut = network.is_shortcut(step)
        number += not shortcut
        if targets.count(step.target) > 1:
            continue
        stem = network.steps[step.reads[0]].kind == "input"
        fixed = (stem and residual) or network.modules[step.target].groups > 1
        readers: list[Reader | None] = [None] if fixed else list(network.readers(step))
        found.append(
            Layer(
                name=step.target,
                width=network.modules[step.target].out_channels,
                number=0 if shortcut else number,
                stem=stem,
                output=step.name in network.outputs,
                norms=tuple(user.target for user in network.users[step.name] if network.is_a(user, _BatchNorm)),
                readers=() if None in readers else tuple(reader for reader in readers if reader is not None),
            )
        )
    return found


def inner_layers(model: nn.Module, example: Tensor) -> list[Layer]:
    """The convolutions that can be pruned without touching a residual sum: in a residual block all but the last.

    Raises:
        NothingToPrune: there is none.
        ValueError: torch.fx cannot follow the network.
    """
    layers = [layer for layer in convolutions(model, example) if layer.inner]
    if not layers:
        raise NothingToPrune(
            f"nothing can be pruned in {type(model).__name__}: "
            "it has no convolution that only ungrouped convolutions and linear layers read"
        )
    return layers


class _Followed:
    """The steps of a network, and questions about who reads whom."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        graph, self.modules = follow(model, example)
        self.with_weights = steps_with_weights(graph, self.modules, model)
        self.outputs = reaching_output(graph, self.with_weights)
        self.steps = {step.name: step for step in graph.steps}
        self.users, self.shapes, self.roles = graph.users(), graph.shapes, roles(graph, self.modules)

    def is_a(self, step: Step, kind: type) -> bool:
        return step.kind == "module" and isinstance(self.modules[step.target], kind)

    def readers(self, step: Step, start: int = 0, area: int = 1) -> Iterator[Reader | None]:
        """Follows the filters that `step` holds from channel `start` on; None where anything but a layer reads."""
        for user in self.users[step.name]:
            role = self.roles[user.name]
            if role == "size":
                continue
            if role in ("linear", "convolution"):
                yield Reader(user.target, start, area)
            elif role == "concatenate":
                before = user.reads[: user.reads.index(step.name)]
                yield from self.readers(user, start + sum(self.shapes[name][1] for name in before), area)
            elif role == "flatten":
                pixels = self.shapes[step.name][2:].numel()
                yield from self.readers(user, start * pixels, area * pixels)
            elif self._keeps_channels(user, step):
                yield from self.readers(user, start, area)
            else:
                yield None

    def is_shortcut(self, step: Step) -> bool:
        """True for a convolution that reads what another one reads as well and goes straight into a sum."""
        siblings = [user for user in self.users[step.reads[0]] if self.is_a(user, nn.Conv2d)]
        users = self.users[step.name]
        if len(siblings) < 2 or len(users) != 1:
            return False
        if self.is_a(users[0], _BatchNorm):
            users = self.users[users[0].name]
        return all(user.kind != "module" and len(user.reads) == 2 for user in users)

    def _keeps_channels(self, user: Step, step: Step) -> bool:
        """True for norms, activations, dropout and pooling: one tensor in, one out, each channel on its own."""
        before, after = self.shapes[step.name], self.shapes.get(user.name)
        if after is None or after[:2] != before[:2] or len(user.reads) != 1 or user.target is operator.getitem:
            return False
        if user.kind != "module":
            return user.kind in ("function", "method")
        module = self.modules[user.target]
        return isinstance(module, _BatchNorm) or not any(True for _ in module.parameters())
