"""Reads the computation of any module once, with torch.fx, and what its values look like."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.graph import Graph, Ref, Step, addresses, caller, execute, mode, substitute, tensors

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModeSwitch(nn.Module):
    """A function, or a method by name, whose arguments depend on train or eval mode: `F.dropout(x, training=...)`."""

    def __init__(self, target: Callable | str, train_args: tuple, eval_args: tuple) -> None:
        super().__init__()
        self.target, self.train_args, self.eval_args = target, train_args, eval_args

    def forward(self, *values: Any) -> Any:
        """Calls the function on `values`, which take the places of the references in order of appearance."""
        args, kwargs = self.train_args if self.training else self.eval_args
        by_name = dict(zip(Step("", "", None, args, kwargs).reads, values, strict=True))
        args, kwargs = substitute((args, kwargs), lambda ref: by_name[ref.name])
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


class Constant(nn.Module):
    """A tensor that the network's own code makes anew at each call, always the same."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value, persistent=False)

    def forward(self) -> Tensor:
        """Returns the tensor."""
        return self.value


class _Tracer(fx.Tracer):
    """Keeps layers whole that have a meaning here even when a library subclasses them, and those of `whole`.

    A module whose own code torch.fx cannot follow (checks of a shape, for example) is added to `whole`, unless it holds
    a batch norm, which a whole module would not run by the statistics of the batch, or is given a list, which the
    attempt to follow it may have changed.
    """

    proxy_buffer_attributes = True  # otherwise what is computed from a buffer alone would be taken for constant

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
    """Takes back what changes attributes of modules, their mode and buffers: following a network runs its code."""
    contents = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    own = [vars(part) for part in model.modules()]
    tables = [*own, *(entries[name] for entries in own for name in ("_parameters", "_buffers") if name in entries)]
    saved = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, entries in saved:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for buffer, version, content in contents:
                if buffer._version != version:
                    buffer.copy_(content)


def _steps(model: nn.Module, tracer: _Tracer, *, training: bool) -> tuple[list[Step], dict[str, Tensor]]:
    """The computation in one mode, and the tensors that the code makes on the way, by the names torch.fx gives them."""
    attributes = set(vars(model))
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
        asked = {node.target for node in graph.nodes if node.op == "get_attr"} - attributes
        constants = {name: vars(model)[name] for name in asked & set(vars(model))}

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
    return [step for step in steps if not _is_default_input(step, steps)], constants


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


def _both_modes(model: nn.Module) -> tuple[list[Step], list[Step], dict[str, Tensor], frozenset[str]]:
    """The steps in train and in eval mode, their constants, and the modules kept whole."""
    whole: set[str] = set()
    while True:
        before = len(whole)
        tracers = _Tracer(whole), _Tracer(whole)
        (train, constants), (evaluate, others) = (
            _steps(model, tracer, training=training) for tracer, training in zip(tracers, (True, False), strict=True)
        )
        one, other = (tracer.inside for tracer in tracers)
        differing = {name for name in one if name in other and one[name] != other[name]}
        innermost = {name for name in differing if not any(inner.startswith(f"{name}.") for inner in differing)}
        whole |= {name for name in innermost if not _holds_norm(model.get_submodule(name))}
        if len(whole) > before:
            continue
        if constants.keys() != others.keys() or not all(torch.equal(constants[name], others[name]) for name in others):
            name = type(model).__name__
            raise ValueError(f"nothing in {name} can be pruned, as it uses a tensor that changes from call to call")
        return train, evaluate, constants, frozenset(whole)


def _differ(one: Step, other: Step) -> bool:
    return (one.args, one.kwargs) != (other.args, other.kwargs)


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
    train, evaluate, constants, whole = _both_modes(model)
    alike = [(s.kind, s.target, s.reads) for s in train] == [(s.kind, s.target, s.reads) for s in evaluate]
    if not alike or any(
        _differ(one, other) and one.kind not in ("function", "method")
        for one, other in zip(train, evaluate, strict=True)
    ):
        name = type(model).__name__
        raise ValueError(f"nothing in {name} can be pruned, as it computes different layers in train and in eval mode")
    if sum(step.kind == "input" for step in train) != 1:
        raise ValueError(f"{type(model).__name__}.forward must take exactly one tensor")
    called = {step.target for step in train if step.kind == "module"}
    modules = {name: module for name, module in model.named_modules() if name in called}
    modules |= {name: Constant(value) for name, value in constants.items()}
    steps = []
    for one, other in zip(train, evaluate, strict=True):
        if _differ(one, other):
            name = f"mode_{one.name}"
            modules[name] = ModeSwitch(one.target, (one.args, dict(one.kwargs)), (other.args, dict(other.kwargs)))
            one = replace(one, kind="module", target=name, args=tuple(Ref(read) for read in one.reads), kwargs={})
        if one.target in constants:
            one = replace(one, kind="module")
        steps.append(one)
    return Graph(steps, whole=whole & called, shared=frozenset(_shared(model) & called)), modules


def set_switches(modules: Mapping[str, nn.Module], *, training: bool) -> None:
    """Puts the functions that depend on the mode, which belong to no model, into train or eval mode."""
    for module in modules.values():
        if isinstance(module, ModeSwitch):
            module.train(training)


def record_shapes(graph: Graph, model: nn.Module, modules: Mapping[str, nn.Module], example: Tensor) -> None:
    """Fills `shapes`, `memory` and `in_place` of the graph from one evaluation of the first sample.

    The model stays unchanged, also by steps that change what they read.

    Raises:
        ValueError: The steps give another output than the network itself.
    """
    set_switches(modules, training=False)
    ordinary = caller(model, modules)
    alive = []  # all values: freed memory would be given to later ones, which would look like views

    def call(step: Step, args: tuple, kwargs: dict) -> Any:
        read = tensors((args, kwargs))
        versions = [tensor._version for tensor in read]
        value = ordinary(step, args, kwargs)
        changed = [tensor for tensor, version in zip(read, versions, strict=True) if tensor._version != version]
        if changed:
            graph.in_place[step.name] = addresses(changed)
        return value

    def watch(name: str, value: Any) -> None:
        alive.append(value)
        graph.memory[name] = addresses(value)
        if isinstance(value, Tensor):
            graph.shapes[name] = value.shape

    def run(compute: Callable[[Tensor], Any]) -> Any:
        with torch.random.fork_rng(devices=[example.device] if example.is_cuda else []), _unchanged(model):
            return compute(example[:1].clone())

    with mode(model, training=False), torch.no_grad():
        followed, own = run(lambda x: execute(graph, call, x, watch=watch)), run(model)
    if not all(_close(one, other) for one, other in zip(tensors(followed), tensors(own), strict=True)):
        raise ValueError(
            f"nothing in {type(model).__name__} can be pruned exactly: torch.fx follows it to another output than its "
            "own. A usual cause is a value that is changed in place (x += ...) and read again under an older name"
        )


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-3, atol=1e-5, equal_nan=True)
