"""Reads the computation of any module, with torch.fx.

One long file: proxies, leaves and the two modes are what torch.fx needs for one question, which `trace` answers.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.checkpoint import CheckpointFunction

from edropout.subnetworks.graph import Graph, Ref, Step, expect
from edropout.subnetworks.modes import ModeSwitch, Reading, merge
from edropout.subnetworks.sizes import Sizes, Value, walked
from edropout.subnetworks.untouched import no_random_numbers, unchanged

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class UnreadableError(ValueError):
    """torch.fx cannot follow a network."""


class Constant(nn.Module):
    """A tensor that the network's own code makes anew at each call, always the same."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        """Returns the tensor."""
        return self.value


class _Pieces(fx.Proxy):
    """What a tensor is split into, which torch.fx can unpack but not walk through, as list(x.chunk(2, 1)) does."""

    def __len__(self) -> int:
        return _pieces(self.node)

    def __iter__(self) -> Iterator[fx.Proxy]:
        return (self[number] for number in range(len(self)))


class _Tracer(fx.Tracer):
    """Keeps layers whole that have a meaning here even when a library subclasses them, and those of `whole`.

    A module whose own code torch.fx cannot follow is added to `whole`: it checks a shape, draws random numbers,
    switches gradients or autocast, or has a gradient of its own. Not so if it holds a batch norm, which a whole module
    would not run by the statistics of the batch, or is given a list, which the attempt to follow it may have changed.
    """

    proxy_buffer_attributes = True  # otherwise what is computed from a buffer alone would be taken for constant

    def __init__(self, whole: set[str], sizes: Sizes | None) -> None:
        super().__init__()
        self.whole, self.sizes = whole, sizes
        self.switches = _switches()
        self.inside: dict[str, list[tuple]] = {}  # name of a module that was followed -> what its calls consist of

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVOLUTIONS, nn.Linear, _BatchNorm, ModeSwitch)
        return (
            isinstance(m, known)
            or module_qualified_name in self.whole
            or super().is_leaf_module(m, module_qualified_name)
        )

    def proxy(self, node: fx.Node) -> fx.Proxy:
        if self.sizes is not None:
            return Value(node, self)
        return super().proxy(node) if _pieces(node) is None else _Pieces(node, self)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val if self._works_out_sizes() else super().getattr(attr, attr_val, parameter_proxy_cache)

    def _works_out_sizes(self) -> bool:
        return self.sizes is not None and self.sizes.running

    def iter(self, obj: fx.Proxy) -> Iterator:
        parts = None if self.sizes is None else walked(self, obj)
        return super().iter(obj) if parts is None else parts

    def to_bool(self, obj: fx.Proxy) -> bool:
        found = None if self.sizes is None else self.sizes.agreed(obj.node)
        if not isinstance(found, bool):
            return super().to_bool(obj)
        self.create_proxy("call_function", expect, (obj, found), {})
        return found

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if _switches() != self.switches:
            raise ValueError("it switches gradients or autocast on or off")
        node = super().create_node(*args, **kwargs)
        if self.sizes is not None:
            self.sizes.compute(node)
        return node

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        if self._works_out_sizes():
            return forward(*args, **kwargs)
        name, before, depth = self.path_of_module(m), len(self.graph.nodes), len(self.module_stack)
        if self.is_leaf_module(m, name):
            return super().call_module(m, forward, args, kwargs)
        try:
            with no_random_numbers():
                value = super().call_module(m, forward, args, kwargs)
        except Exception:  # whatever the module's own control flow raises
            if _holds_norm(m) or any(isinstance(arg, list | dict) for arg in (*args, *kwargs.values())):
                raise
            for node in self._since(before):
                self.graph.erase_node(node)
            while len(self.module_stack) > depth:
                self.module_stack.popitem()
            self.whole.add(name)
            return self.create_proxy("call_module", name, args, kwargs)
        self.inside.setdefault(name, []).extend((node.op, node.target) for node in self._since(before))
        return value

    def _since(self, count: int) -> list[fx.Node]:
        """The nodes after the first `count`, last one first."""
        return list(itertools.islice(reversed(self.graph.nodes), len(self.graph.nodes) - count))


def _pieces(node: fx.Node) -> int | None:
    """Number of parts that a tensor is split into, as in list(x.chunk(2, 1)); None where that is not said."""
    if node.target in ("chunk", torch.chunk, torch.tensor_split, "tensor_split"):
        asked = node.args[1] if len(node.args) > 1 else node.kwargs.get("chunks", node.kwargs.get("sections"))
        return asked if isinstance(asked, int) else None
    if node.target in ("split", torch.split):
        asked = node.args[1] if len(node.args) > 1 else node.kwargs.get("split_size_or_sections")
        return len(asked) if isinstance(asked, list | tuple) else None
    return None


def _switches() -> tuple[bool, ...]:
    return torch.is_grad_enabled(), torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")


@contextmanager
def _no_custom_gradients() -> Iterator[None]:
    """torch.fx would follow an autograd.Function into its forward and lose its backward: makes it fail instead.

    Checkpoints have the ordinary gradient and are followed; their saving of memory is lost.
    """
    apply = torch.autograd.Function.__dict__["apply"]

    def fail(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is CheckpointFunction:
            run, _, *args = args
            return run(*args)
        followed = any(isinstance(arg, fx.Proxy) for arg in (*args, *kwargs.values()))
        if followed and cls.__module__ != CheckpointFunction.__module__:
            raise ValueError(f"{cls.__name__} has a gradient of its own")
        return apply.__get__(None, cls)(*args, **kwargs)

    torch.autograd.Function.apply = classmethod(fail)
    try:
        yield
    finally:
        torch.autograd.Function.apply = apply


def _holds_norm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


_KINDS = {
    "placeholder": "input",
    "get_attr": "attribute",
    "call_module": "module",
    "call_function": "function",
    "call_method": "method",
    "output": "output",
}


def _read(model: nn.Module, whole: set[str], example: Tensor | None, *, training: bool) -> Reading:
    """Reads the model in one mode, with the sizes of an example if given; what cannot be followed becomes `whole`."""
    attributes, tracer = set(vars(model)), _Tracer(whole, None if example is None else Sizes(model, example))
    optional = {
        name: parameter.default
        for name, parameter in inspect.signature(model.forward).parameters.items()
        if parameter.default is None or isinstance(parameter.default, bool | int | float | str)
    }
    with unchanged(model), _no_custom_gradients():
        model.train(training)
        try:
            with no_random_numbers():
                graph = tracer.trace(model, concrete_args=optional)
        except Exception as error:  # torch.fx raises whatever the model's own control flow raises
            name = type(model).__name__
            raise UnreadableError(f"nothing in {name} can be pruned, as torch.fx cannot follow it: {error}") from error
        asked = {node.target for node in graph.nodes if node.op == "get_attr"} - attributes
        constants = {name: vars(model)[name] for name in asked & set(vars(model))}

    def convert(value: Any) -> Any:
        return fx.node.map_aggregate(value, lambda entry: Ref(entry.name) if isinstance(entry, fx.Node) else entry)

    steps, owners = [], {}
    for node in graph.nodes:
        args, kwargs = convert(tuple(node.args)), dict(convert(dict(node.kwargs)))
        steps.append(Step(node.name, _KINDS[node.op], node.target, _plain(args), _plain(kwargs)))
        stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
        owners[node.name] = ["", *stack][-2 if node.op == "call_module" and stack else -1]
    # Checks are left out; torch.fx adds some, that optional arguments have their default values.
    steps = [step for step in steps if getattr(step.target, "__name__", "") not in ("_assert_is_none", "_assert")]
    read = {name for step in steps for name in step.reads}
    steps = [step for step in steps if step.target not in (operator.eq, getattr, "size") or step.name in read]
    steps = [step for step in steps if not _is_default_input(step, steps)]
    return Reading(steps, constants, owners, tracer.inside)


def _plain(value: Any) -> Any:
    """Turns torch.fx's immutable lists and dictionaries into ordinary ones."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if hasattr(value, "_fields"):  # a named tuple
        return type(value)(*map(_plain, value))
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(_plain(entry) for entry in value)
    return value


def _is_default_input(step: Step, steps: list[Step]) -> bool:
    """An optional argument of forward that nothing reads."""
    return step.kind == "input" and bool(step.args) and not any(step.name in other.reads for other in steps)


def _both_modes(model: nn.Module, example: Tensor | None) -> tuple[Reading, Reading, frozenset[str]]:
    """The computation in train and in eval mode, and the modules kept whole, as if their steps depend on the mode."""
    whole: set[str] = set()
    while True:
        before = len(whole)
        train, evaluate = (_read(model, whole, example, training=training) for training in (True, False))
        one, other = train.inside, evaluate.inside
        differing = {name for name in one if name in other and one[name] != other[name]}
        innermost = {name for name in differing if not any(inner.startswith(f"{name}.") for inner in differing)}
        whole |= {name for name in innermost if not _holds_norm(model.get_submodule(name))}
        if len(whole) == before:
            return train, evaluate, frozenset(whole)


def _shared(model: nn.Module) -> set[str]:
    """Names of the modules with a parameter that has a second name."""
    owners: dict[int, list[str]] = {}
    for name, part in model.named_modules(remove_duplicate=False):
        for parameter in part._parameters.values():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(name)
    return {name for names in owners.values() if len(names) > 1 for name in names}


def trace(model: nn.Module, example: Tensor | None = None) -> tuple[Graph, dict[str, nn.Module]]:
    """Reads the computation of `model` in train and in eval mode.

    A network that asks for sizes is read for those of the example: what is read then holds for inputs of this size.

    Args:
        model: The network.
        example: (batch, ...) one input; without it, a network that asks for sizes cannot be read.

    Returns:
        The graph, and the modules its steps call by name, with a `ModeSwitch` for each function whose constants
        depend on the mode.

    Raises:
        ValueError: torch.fx cannot follow the model, or it does not take exactly one tensor.
    """
    assumed = getattr(model, "size_read_for", None)  # of a network that was pruned
    try:
        train, evaluate, whole = _both_modes(model, None)
    except UnreadableError as error:
        if example is None:
            hint = "give an example, as EDropout(model, example=x), and it may be read for inputs of that size"
            raise UnreadableError(f"{error}; {hint}") from error
        train, evaluate, whole = _both_modes(model, example)
        assumed = example.shape[1:]
    refuse = f"nothing in {type(model).__name__} can be pruned, as it"
    constants, others = train.constants, evaluate.constants
    if not all(torch.equal(constants[name], others[name]) for name in constants.keys() & others.keys()):
        raise ValueError(f"{refuse} uses a tensor that changes from call to call")
    merged = merge(train, evaluate)
    if any(
        step.target in (F.batch_norm, torch.batch_norm, F.instance_norm) for step in (*train.steps, *evaluate.steps)
    ):
        raise ValueError(f"{refuse} normalises by a function: use modules, whose statistics can be told apart")
    if any(isinstance(part, _InstanceNorm) and part.track_running_stats for part in model.modules()):
        raise ValueError(f"{refuse} has instance norms with running statistics")
    if sum(step.kind == "input" for step in merged.steps) != 1:
        raise ValueError(f"{type(model).__name__}.forward must take exactly one tensor")
    constants = constants | others
    called = {step.target for step in merged.steps if step.kind == "module"}
    modules = {name: module for name, module in model.named_modules() if name in called}
    modules |= {name: Constant(value) for name, value in constants.items()} | merged.switches
    steps = [replace(step, kind="module") if step.target in constants else step for step in merged.steps]
    shared = frozenset(_shared(model) & called)
    return Graph(steps, whole=whole & called, shared=shared, modes=merged.modes, assumed=assumed), modules
