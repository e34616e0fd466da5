"""The computation of any module as a flat list of steps, read once with torch.fx."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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

    @property
    def reads(self) -> list[str]:
        """Names of the steps whose values this step takes, in order, without repetition."""
        found: dict[str, None] = {}
        substitute((self.args, dict(self.kwargs)), lambda ref: found.setdefault(ref.name))
        return list(found)


@dataclass
class Graph:
    """Steps in execution order, and what is known of them.

    Attributes:
        steps: The computation.
        shapes: After `record_shapes`, the shape of every tensor among the values.
        in_place: After `record_shapes`, names of the steps that change a tensor that they read.
        whole: Names of the modules that could not be followed and run as one step.
        shared: Names of the modules that have a parameter which another module holds too.
    """

    steps: list[Step]
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    in_place: set[str] = field(default_factory=set)
    whole: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()

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
    if isinstance(value, (tuple, list)):
        return type(value)(substitute(entry, change) for entry in value)
    if isinstance(value, dict):
        return {key: substitute(entry, change) for key, entry in value.items()}
    if isinstance(value, slice):
        return slice(*(substitute(entry, change) for entry in (value.start, value.stop, value.step)))
    return value


class ModeSwitch(nn.Module):
    """A function whose arguments depend on train or eval mode, for example `F.dropout(x, training=...)`."""

    def __init__(self, target: Callable, train_args: tuple, eval_args: tuple) -> None:
        super().__init__()
        self.target, self.train_args, self.eval_args = target, train_args, eval_args

    def forward(self, *values: Any) -> Any:
        """Calls the function on `values`, which take the places of the references in order of appearance."""
        args, kwargs = self.train_args if self.training else self.eval_args
        by_name = dict(zip(Step("", "", None, args, kwargs).reads, values, strict=True))
        args, kwargs = substitute((args, kwargs), lambda ref: by_name[ref.name])
        return self.target(*args, **kwargs)


class _Tracer(fx.Tracer):
    """Keeps layers whole that have a meaning here even when a library subclasses them, and those of `whole`.

    A module whose own code torch.fx cannot follow (checks of a shape, for example) is added to `whole`, unless it holds
    a batch norm, which a whole module would not run by the statistics of the batch, or is given a list, which the
    attempt to follow it may have changed.
    """

    def __init__(self, whole: set[str]) -> None:
        super().__init__()
        self.whole = whole
        self.inside: dict[str, list[tuple]] = {}  # name of a module that was followed -> what its calls consist of

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = (*CONVOLUTIONS, nn.Linear, _BatchNorm, ModeSwitch)
        return (
            isinstance(m, known)
            or module_qualified_name in self.whole
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        name, before, depth = self.path_of_module(m), len(self.graph.nodes), len(self.module_stack)
        try:
            value = super().call_module(m, forward, args, kwargs)
        except Exception:  # whatever the module's own control flow raises
            if not name or _holds_norm(m) or any(isinstance(arg, list | dict) for arg in (*args, *kwargs.values())):
                raise
            for node in self._since(before):
                self.graph.erase_node(node)
            while len(self.module_stack) > depth:
                self.module_stack.popitem()
            self.whole.add(name)
            return self.create_proxy("call_module", name, args, kwargs)
        if not self.is_leaf_module(m, name):
            self.inside.setdefault(name, []).extend((node.op, node.target) for node in self._since(before))
        return value

    def _since(self, count: int) -> list[fx.Node]:
        """The nodes after the first `count`, last one first."""
        return list(itertools.islice(reversed(self.graph.nodes), len(self.graph.nodes) - count))


def _holds_norm(module: nn.Module) -> bool:
    return any(isinstance(part, _BatchNorm) for part in module.modules())


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts every module into train or eval mode and restores each module's own mode afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


_KINDS = {
    "placeholder": "input",
    "get_attr": "attribute",
    "call_module": "module",
    "call_function": "function",
    "call_method": "method",
    "output": "output",
}


@contextmanager
def _unchanged(model: nn.Module) -> Iterator[None]:
    """Takes back what is assigned to attributes of modules, their mode too: following a network runs its code."""
    own = [vars(part) for part in model.modules()]
    tables = [*own, *(entries[name] for entries in own for name in ("_parameters", "_buffers") if name in entries)]
    saved = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, entries in saved:
            table.clear()
            table.update(entries)


def _steps(model: nn.Module, tracer: _Tracer, *, training: bool) -> list[Step]:
    with _unchanged(model):
        model.train(training)
        try:
            optional = {
                name: parameter.default
                for name, parameter in inspect.signature(model.forward).parameters.items()
                if parameter.default is None or isinstance(parameter.default, bool | int | float | str)
            }
            graph = tracer.trace(model, concrete_args=optional)
        except Exception as error:  # torch.fx raises whatever the model's own control flow raises
            name = type(model).__name__
            raise ValueError(f"nothing in {name} can be pruned, as torch.fx cannot follow it: {error}") from error

    def convert(value: Any) -> Any:
        return fx.node.map_aggregate(value, lambda entry: Ref(entry.name) if isinstance(entry, fx.Node) else entry)

    steps = []
    for node in graph.nodes:
        args, kwargs = convert(tuple(node.args)), dict(convert(dict(node.kwargs)))
        steps.append(Step(node.name, _KINDS[node.op], node.target, _plain(args), _plain(kwargs)))
    # Checks are left out; torch.fx adds some, that optional arguments have their default values.
    steps = [step for step in steps if getattr(step.target, "__name__", "") not in ("_assert_is_none", "_assert")]
    read = {name for step in steps for name in step.reads}
    steps = [step for step in steps if step.target is not operator.eq or step.name in read]
    return [step for step in steps if not _is_default_input(step, steps)]


def _plain(value: Any) -> Any:
    """Turns torch.fx's immutable lists and dictionaries into ordinary ones."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return (tuple if isinstance(value, tuple) else list)(_plain(entry) for entry in value)
    return value


def _is_default_input(step: Step, steps: list[Step]) -> bool:
    """An optional argument of forward that nothing reads."""
    return step.kind == "input" and bool(step.args) and not any(step.name in other.reads for other in steps)


def _both_modes(model: nn.Module) -> tuple[list[Step], list[Step], frozenset[str]]:
    """The steps in train and in eval mode, and the modules kept whole, as those whose steps depend on the mode."""
    whole: set[str] = set()
    while True:
        before = len(whole)
        tracers = _Tracer(whole), _Tracer(whole)
        train, evaluate = (
            _steps(model, tracer, training=training) for tracer, training in zip(tracers, (True, False), strict=True)
        )
        one, other = (tracer.inside for tracer in tracers)
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


def trace(model: nn.Module) -> tuple[Graph, dict[str, nn.Module]]:
    """Reads the computation of `model` in train and in eval mode.

    Returns:
        The graph, and the modules its steps call by name, with a `ModeSwitch` for each function whose constants
        depend on the mode.

    Raises:
        ValueError: torch.fx cannot follow the model, its own `forward` or a module with batch norm takes other paths in
            train than in eval mode, or it does not take exactly one tensor.
    """
    train, evaluate, whole = _both_modes(model)
    if [(s.kind, s.target, s.reads) for s in train] != [(s.kind, s.target, s.reads) for s in evaluate]:
        name = type(model).__name__
        raise ValueError(f"nothing in {name} can be pruned, as it computes different layers in train and in eval mode")
    if sum(step.kind == "input" for step in train) != 1:
        raise ValueError(f"{type(model).__name__}.forward must take exactly one tensor")
    called = {step.target for step in train if step.kind == "module"}
    modules = {name: module for name, module in model.named_modules() if name in called}
    steps = []
    for one, other in zip(train, evaluate, strict=True):
        if (one.args, one.kwargs) != (other.args, other.kwargs):
            name = f"mode_{one.name}"
            modules[name] = ModeSwitch(one.target, (one.args, dict(one.kwargs)), (other.args, dict(other.kwargs)))
            one = replace(one, kind="module", target=name, args=tuple(Ref(read) for read in one.reads), kwargs={})
        steps.append(one)
    return Graph(steps, whole=whole & called, shared=frozenset(_shared(model) & called)), modules


def set_switches(modules: Mapping[str, nn.Module], *, training: bool) -> None:
    """Puts the functions that depend on the mode, which belong to no model, into train or eval mode."""
    for module in modules.values():
        if isinstance(module, ModeSwitch):
            module.train(training)


def execute(
    graph: Graph,
    call: Callable[[Step, tuple, dict], Any],
    x: Any,
    *,
    watch: Callable[[str, Any], None] | None = None,
) -> Any:
    """Runs the steps in order on the input `x` and returns the output; each value is freed after its last reader.

    Args:
        graph: The steps.
        call: Carries out one step, given its arguments.
        x: Value of the input step.
        watch: Called with the name and the value of every step.
    """
    last = {name: step.name for step in graph.steps for name in step.reads}
    values: dict[str, Any] = {}
    value = None
    for step in graph.steps:
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


def record_shapes(graph: Graph, model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor) -> None:
    """Fills `graph.shapes` and `graph.in_place` from one evaluation of the first sample; leaves the model unchanged."""
    set_switches(modules, training=False)
    ordinary = caller(model, modules)

    def call(step: Step, args: tuple, kwargs: dict) -> Any:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        versions = [tensor._version for tensor in tensors]
        value = ordinary(step, args, kwargs)
        if versions != [tensor._version for tensor in tensors]:
            graph.in_place.add(step.name)
        return value

    def watch(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            graph.shapes[name] = value.shape

    with mode(model, training=False), torch.no_grad():
        execute(graph, call, example[:1].clone(), watch=watch)
