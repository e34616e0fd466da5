"""The computation of any module as a flat list of steps, and how to carry it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Ref:
    """Stands for the value of an earlier step among the arguments of a step."""

    name: str


@dataclass(frozen=True)
class Step:
    """One node of the graph: `kind` is 'input', 'attribute', 'module', 'function', 'method' or 'output'."""

    name: str
    kind: str
    target: Any
    args: tuple
    kwargs: Mapping[str, Any]

    @cached_property
    def reads(self) -> list[str]:
        """Names of the steps whose values this step takes, in order, without repetition."""
        found: dict[str, None] = {}
        substitute((self.args, dict(self.kwargs)), lambda ref: found.setdefault(ref.name))
        return list(found)

    def __reduce__(self) -> tuple:
        name = next((name for name, value in vars(F).items() if value is self.target), None)
        return _restored, (name, None if name else self.target, self.name, self.kind, self.args, self.kwargs)


def _restored(function: str | None, target: Any, name: str, kind: str, args: tuple, kwargs: Mapping) -> Step:
    """A step from its pickled form; some functions of torch.nn.functional, as max_pool2d, only go by their name."""
    return Step(name, kind, target if function is None else getattr(F, function), args, kwargs)


@dataclass
class Graph:
    """Steps in execution order, and what is known of them.

    Attributes:
        steps: The computation.
        shapes: After `follow`, the shape of every tensor among the values.
        memory: After `follow`, where the tensors of each value lie: views of one tensor lie in the same place.
        in_place: After `follow`, the places that a step changes, for the steps that change what they read.
        whole: Names of the modules that could not be followed and run as one step.
        shared: Names of the modules that have a parameter which another module holds too.
        modes: Of the steps that run in one mode alone: name of the module whose mode counts, and this mode.
        assumed: Sizes of an input, without the batch, for which alone the steps hold; None for any.
    """

    steps: list[Step]
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    memory: dict[str, set[int]] = field(default_factory=dict)
    in_place: dict[str, set[int]] = field(default_factory=dict)
    whole: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    modes: Mapping[str, tuple[str, bool]] = field(default_factory=dict)
    assumed: torch.Size | None = None

    def running(self, owner: nn.Module) -> list[Step]:
        """The steps that run in the mode that the modules of `owner` have now."""
        off = {name for name, (part, training) in self.modes.items() if owner.get_submodule(part).training != training}
        return [step for step in self.steps if step.name not in off] if off else self.steps

    def users(self) -> dict[str, list[Step]]:
        """Maps the name of each step to the steps that read it."""
        found: dict[str, list[Step]] = {step.name: [] for step in self.steps}
        for step in self.steps:
            for name in step.reads:
                found[name].append(step)
        return found


def substitute(value: Any, change: Callable[[Ref], Any]) -> Any:
    """Rebuilds nested arguments with every `Ref` replaced by `change(ref)`."""
    if isinstance(value, Ref):
        return change(value)
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*(substitute(entry, change) for entry in value))
    if isinstance(value, (tuple, list)):
        return type(value)(substitute(entry, change) for entry in value)
    if isinstance(value, dict):
        return {key: substitute(entry, change) for key, entry in value.items()}
    if isinstance(value, slice):
        return slice(*(substitute(entry, change) for entry in (value.start, value.stop, value.step)))
    return value


def tensors(value: Any) -> list[Tensor]:
    """The tensors of a nested value, in order."""
    found: list[Tensor] = []

    def see(entry: Any) -> Any:
        if isinstance(entry, Tensor):
            found.append(entry)
        return entry

    fx.node.map_aggregate(value, see)
    return found


def addresses(value: Any) -> set[int]:
    """Addresses of the memory in which the tensors of a nested value lie."""
    return {tensor.untyped_storage().data_ptr() for tensor in tensors(value)}


def expect(value: Any, found: Any) -> None:
    """Raises ValueError unless a question about sizes has the answer that it had when the network was read."""
    if value != found:
        raise ValueError(f"the network takes another path for this batch than for the example that it was read with: "
                         f"a question that was answered with {found} is answered with {value}")  # fmt: skip


def execute(
    steps: list[Step],
    call: Callable[[Step, tuple, dict], Any],
    x: Any,
    *,
    watch: Callable[[str, Any], None] | None = None,
) -> Any:
    """Runs the steps in order on the input `x` and returns the output; each value is freed after its last reader.

    Args:
        steps: Those that run.
        call: Carries out one step, given its arguments.
        x: Value of the input step.
        watch: Called with the name and the value of every step.
    """
    last = {name: step.name for step in steps for name in step.reads}
    values: dict[str, Any] = {}
    value = None
    for step in steps:
        if step.kind == "input":
            value = x
        else:
            args, kwargs = substitute((step.args, dict(step.kwargs)), lambda ref: values[ref.name])
            value = args[0] if step.kind == "output" else call(step, args, kwargs)
        if watch is not None:
            watch(step.name, value)
        values[step.name] = value
        for name in step.reads:
            if last[name] == step.name:
                del values[name]
    return value


def caller(owner: nn.Module, modules: Mapping[str, nn.Module] | None = None) -> Callable[[Step, tuple, dict], Any]:
    """Returns what carries out one step with the ordinary modules and attributes of `owner`."""

    def call(step: Step, args: tuple, kwargs: dict) -> Any:
        if step.kind == "module":
            module = owner.get_submodule(step.target) if modules is None else modules[step.target]
            return module(*args, **kwargs)
        if step.kind == "attribute":
            prefix, _, leaf = step.target.rpartition(".")
            return getattr(owner.get_submodule(prefix), leaf)
        if step.kind == "method":
            return getattr(args[0], step.target)(*args[1:], **kwargs)
        return step.target(*args, **kwargs)

    return call
