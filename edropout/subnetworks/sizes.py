"""Sizes of values while torch.fx reads a network, for forwards that take other paths for other sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from edropout.subnetworks.graph import expect

# Lengths of the two batches, far apart: a size that is the same for both does not depend on the batch.
LENGTHS = (2, 61)
NUMBERS = (bool, int, float, str, torch.device)


class Sizes:
    """What every value is for batches of two lengths, worked out on tensors without contents.

    Args:
        model: The network that is read.
        example: (batch, ...) one input.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self.model = model
        self.running = False  # while a layer works out its sizes, nothing of it is to be recorded
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        with self._mode:
            self._inputs = [example.new_empty(length, *example.shape[1:]) for length in LENGTHS]
        self._values: dict[fx.Node, list[Any]] = {}

    def compute(self, node: fx.Node) -> None:
        """Works out what a new node gives; it stays unknown where that depends on contents."""
        if node.op == "output" or any(read not in self._values for read in node.all_input_nodes):
            return
        self.running = True
        try:
            with self._mode, torch.no_grad():
                self._values[node] = [self._run(node, number) for number in range(len(LENGTHS))]
        except Exception:  # whatever an operation has to say to tensors without contents
            self._values.pop(node, None)
        finally:
            self.running = False

    def _run(self, node: fx.Node, number: int) -> Any:
        if node.op == "placeholder":
            return node.args[0] if node.args else self._inputs[number]
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda read: self._values[read][number])
        target: Any = node.target
        if node.op == "call_function":
            return target(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], target)(*args[1:], **kwargs)
        if node.op == "call_module":
            return self.model.get_submodule(target)(*args, **kwargs)
        owner, _, name = target.rpartition(".")
        return getattr(self.model.get_submodule(owner), name)

    def tensors(self, node: fx.Node) -> list[Tensor]:
        """The tensor that a node gives for each length; none where that is unknown or no tensor."""
        found = self._values.get(node, [None])
        return found if all(isinstance(value, Tensor) for value in found) else []

    def agreed(self, node: fx.Node) -> Any:
        """The number, or what else has no contents, that a node gives for every length; None where there is none."""
        first, *others = self._values.get(node, [None])
        return first if isinstance(first, NUMBERS) and all(first == other for other in others) else None

    def length(self, node: fx.Node) -> int | None:
        """Number of parts of a tuple, or of slices of a tensor along its first axis; None where that varies."""
        found = {len(v) if isinstance(v, tuple | list | Tensor) else None for v in self._values.get(node, [None])}
        return found.pop() if len(found) == 1 else None


class _Asked:
    """Answers a network's questions about sizes with numbers, where they are the same for every batch."""

    node: fx.Node
    tracer: Any

    @property
    def shape(self) -> Any:
        found = self.tracer.sizes.tensors(self.node)
        if not found:
            return Attribute(self, "shape")
        sizes = zip(*(value.shape for value in found), strict=True)
        return tuple(
            size[0] if len(set(size)) == 1 else self.tracer.create_proxy("call_method", "size", (self, axis), {})
            for axis, size in enumerate(sizes)
        )

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    @property
    def ndim(self) -> Any:
        return len(self.shape)

    def dim(self) -> Any:
        return len(self.shape)

    @property
    def device(self) -> Any:
        found = self.tracer.sizes.tensors(self.node)
        return found[0].device if found else Attribute(self, "device")

    def __getattr__(self, name: str) -> Any:
        return Attribute(self, name)

    def __len__(self) -> int:
        found = self.tracer.sizes.length(self.node)
        return super().__len__() if found is None else found

    def __index__(self) -> int:
        found = self.tracer.sizes.agreed(self.node)
        if not isinstance(found, int):
            raise TypeError("it uses a number that depends on the batch")
        self.tracer.create_proxy("call_function", expect, (self, found), {})
        return found

    __int__ = __index__


class Value(_Asked, fx.Proxy):
    """Stands for a value while a network is read with the sizes of an example."""


class Attribute(_Asked, fx.proxy.Attribute):
    """Stands for what a value has, as `x.T`, or for a method of it."""


def walked(tracer: Any, value: fx.Proxy) -> Iterator[fx.Proxy] | None:
    """The parts of a value that a network walks through; None where nobody knows how many there are."""
    count = tracer.sizes.length(value.node)
    return None if count is None else (value[number] for number in range(count))
