"""Which convolutions of a network a structured method may prune, and who reads their filters."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _BatchNorm

ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")
CONCATENATIONS = (torch.cat, torch.concat)
FLATTENINGS = (torch.flatten, "flatten", "view", "reshape", torch.reshape)
SIZES = ("size", "dim", getattr)


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


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


class NothingToPrune(ValueError):
    """A network in which a method finds no layer that it may prune."""


def convolutions(model: nn.Module, example: Tensor) -> list[Layer]:
    """The convolutions that the network calls once, in execution order.

    Args:
        model: The network; it is run once in evaluation mode and left as it was.
        example: (batch, channels, height, width) on the network's device.

    Raises:
        ValueError: torch.fx cannot follow the network.
    """
    was_training = model.training
    try:
        graph = fx.GraphModule(model.eval(), _Tracer().trace(model))
    except Exception as error:  # torch.fx raises whatever the network's own control flow raises
        raise ValueError(f"{type(model).__name__} cannot be pruned: torch.fx cannot follow it ({error})") from error
    with torch.no_grad():
        ShapeProp(graph).propagate(example[:1])
    model.train(was_training)
    modules = dict(graph.named_modules())
    calls = [node for node in graph.graph.nodes if _is(node, modules, nn.Conv2d)]
    targets = [node.target for node in calls]
    residual = any(node.target in ADDITIONS and len(node.all_input_nodes) == 2 for node in graph.graph.nodes)
    found, number = [], 0
    for node in calls:
        shortcut = _is_shortcut(node, modules)
        number += not shortcut
        if targets.count(node.target) > 1:
            continue
        stem = node.args[0].op == "placeholder"
        fixed = (stem and residual) or modules[node.target].groups > 1
        readers = [None] if fixed else list(_readers(node, modules, 0, 1))
        found.append(
            Layer(
                name=node.target,
                width=modules[node.target].out_channels,
                number=0 if shortcut else number,
                stem=stem,
                output=_reaches_output(node, modules),
                norms=tuple(user.target for user in node.users if _is(user, modules, _BatchNorm)),
                readers=() if None in readers else tuple(readers),
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


def _is(node: fx.Node, modules: dict[str, nn.Module], kind: type) -> bool:
    return node.op == "call_module" and isinstance(modules[node.target], kind)


def _readers(node: fx.Node, modules: dict[str, nn.Module], start: int, area: int) -> Iterator[Reader | None]:
    """Follows the filters that `node` holds from channel `start` on; None where something else than a layer reads."""
    for user in node.users:
        if user.target in SIZES:
            continue
        if _is(user, modules, nn.Linear) or (_is(user, modules, nn.Conv2d) and modules[user.target].groups == 1):
            yield Reader(user.target, start, area)
        elif user.target in CONCATENATIONS and _dimension(user) == 1:
            before = user.args[0][: user.args[0].index(node)]
            yield from _readers(user, modules, start + sum(_shape(other)[1] for other in before), area)
        elif _flattens(user, node, modules):
            pixels = _shape(node)[2:].numel()
            yield from _readers(user, modules, start * pixels, area * pixels)
        elif _keeps_channels(user, node, modules):
            yield from _readers(user, modules, start, area)
        else:
            yield None


def _reaches_output(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    waiting, seen = [node], {node}
    while waiting:
        for user in waiting.pop().users:
            if user.op == "output":
                return True
            if user not in seen and not _has_weights(user, modules):
                seen.add(user)
                waiting.append(user)
    return False


def _has_weights(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    return node.op == "call_module" and any(parameter.dim() > 1 for parameter in modules[node.target].parameters())


def _shape(node: fx.Node) -> torch.Size | None:
    return getattr(node.meta.get("tensor_meta"), "shape", None)


def _dimension(node: fx.Node) -> int:
    return node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)


def _flattens(user: fx.Node, node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    before, after = _shape(node), _shape(user)
    known = user.target in FLATTENINGS or _is(user, modules, nn.Flatten)
    return known and len(before) > 2 and after == (before[0], before[1:].numel())


def _keeps_channels(user: fx.Node, node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """True for norms, activations, dropout and pooling: one tensor in, one out, each channel on its own."""
    before, after = _shape(node), _shape(user)
    if after is None or after[:2] != before[:2] or len(user.all_input_nodes) != 1 or user.target is operator.getitem:
        return False
    if user.op != "call_module":
        return user.op in ("call_function", "call_method")
    module = modules[user.target]
    return isinstance(module, _BatchNorm) or not any(True for _ in module.parameters())


def _is_shortcut(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """True for a convolution that reads what another one reads as well and goes straight into a sum."""
    siblings = [user for user in node.args[0].users if _is(user, modules, nn.Conv2d)]
    users = list(node.users)
    if len(siblings) < 2 or len(users) != 1:
        return False
    if _is(users[0], modules, _BatchNorm):
        users = list(users[0].users)
    return all(user.op != "call_module" and len(user.all_input_nodes) == 2 for user in users)
