"""Runs once what was read of a network: shapes, views, changes in place, and whether it is what the network does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks.graph import Graph, Ref, Step, addresses, caller, execute, substitute, tensors
from edropout.subnetworks.modes import set_switches
from edropout.subnetworks.tracing import trace
from edropout.subnetworks.untouched import (
    RandomNumbersError,
    mode,
    no_random_numbers,
    the_same_random_numbers,
    unchanged,
)


def follow(model: nn.Module, example: Tensor) -> tuple[Graph, dict[str, nn.Module]]:
    """Reads the computation of `model` as `trace` does and fills `shapes`, `memory` and `in_place` of the graph.

    They come from one evaluation of the first samples. A value that is read again after a step has changed it in place
    is from then on read as the result of that step. The model stays unchanged, whatever its steps do in place.

    Args:
        model: The network.
        example: (batch, ...) one input, on its device.

    Returns:
        The graph, and the modules that its steps call by name.

    Raises:
        ValueError: `trace` cannot read it, the steps give another output or other gradients than the network itself, or
            they draw random numbers.
    """
    graph, modules = trace(model, example)
    _observe(graph, modules, model, example, training=False)
    if graph.modes:
        _observe(graph, modules, model, example, training=True)
    return graph, modules


def _observe(
    graph: Graph, modules: Mapping[str, nn.Module], model: nn.Module, example: Tensor, *, training: bool
) -> None:
    """Runs the steps of one mode once."""
    ordinary = caller(model, modules)
    alive: dict[str, Any] = {}  # all values: freed memory would be given to later ones, which would look like views

    def call(step: Step, args: tuple, kwargs: dict) -> Any:
        read = tensors((args, kwargs))
        versions = [tensor._version for tensor in read]
        value = ordinary(step, args, kwargs)
        changed = [tensor for tensor, version in zip(read, versions, strict=True) if tensor._version != version]
        if changed:
            graph.in_place[step.name] = addresses(changed) | graph.in_place.get(step.name, set())
        return value

    def watch(name: str, value: Any) -> None:
        alive[name] = value
        graph.memory[name] = addresses(value) | graph.memory.get(name, set())
        if isinstance(value, Tensor):
            graph.shapes[name] = value.shape

    name = type(model).__name__
    with mode(model, training=training):
        set_switches(modules, model)
        steps = graph.running(model)
        try:
            followed = _run(model, lambda x: execute(steps, call, x, watch=watch), example, training=training)
            own = _run(model, model, example, training=training)
        except RandomNumbersError as error:
            raise ValueError(f"nothing in {name} can be pruned: {error} in eval mode") from error
    same = all(map(close, followed.values, own.values)) and len(followed.values) == len(own.values)
    if not same or not all(map(close, followed.gradients or (), own.gradients or ())):
        cause = "A usual cause is a value that is changed in place (x += ...) and read again under an older name"
        if "forward" in vars(model):
            cause = (
                "Its forward was replaced, as accelerate does for mixed precision: search the network that has not "
                "been prepared, and call loss under torch.autocast"
            )
        raise ValueError(
            f"nothing in {name} can be pruned exactly: torch.fx follows it to another output or other gradients than "
            f"its own. {cause}"
        )
    _rename(graph, alive)


def first_samples(x: Tensor) -> Tensor:
    """A copy of two samples of a batch (one of one), enough to tell the batch from what happens to have one entry."""
    return x[:2].detach().clone()


def close(one: Tensor | None, other: Tensor | None) -> bool:
    """True if two results of the same computation differ by rounding alone, or if the second is not finite."""
    if one is None or other is None:
        present = one if other is None else other
        return present is None or not bool(present.any())
    if one.shape != other.shape:
        return False
    if not other.dtype.is_floating_point:
        return torch.equal(one, other)
    if not bool(other.isfinite().all()):
        return True
    precision = torch.finfo(torch.promote_types(one.dtype, other.dtype)).eps
    if torch.is_autocast_enabled(one.device.type):
        precision = max(precision, torch.finfo(torch.get_autocast_dtype(one.device.type)).eps)
    if one.device.type == "cuda":
        precision = max(precision, 2.0**-10)  # TF32
    difference, size = (torch.linalg.vector_norm(value, dtype=torch.float64) for value in (one - other, other))
    return float(difference) <= 10 * precision**0.5 * float(size)


@dataclass(frozen=True)
class _Run:
    """The tensors that a computation returns, and the gradients of a fixed weighted sum of them (None: it has none)."""

    values: list[Tensor]
    gradients: tuple[Tensor | None, ...] | None


def _run(model: nn.Module, compute: Callable[[Tensor], Any], example: Tensor, *, training: bool) -> _Run:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    numbers = the_same_random_numbers if training else no_random_numbers
    with torch.inference_mode(False), torch.enable_grad(), numbers(example.device), unchanged(model):
        found = tensors(compute(first_samples(example)))
        weighted = [(value * _weights(value)).sum() for value in found if value.requires_grad]
        gradients = None
        if weighted and parameters:
            # cuDNN's recurrent layers have no gradient in eval mode, reentrant checkpoints none by this call.
            with suppress(RuntimeError):
                gradients = torch.autograd.grad(sum(weighted), parameters, allow_unused=True)
        return _Run([value.detach() for value in found], gradients)


def _weights(value: Tensor) -> Tensor:
    return torch.arange(value.numel(), device=value.device).cos().to(value.dtype).view(value.shape)


def _rename(graph: Graph, values: Mapping[str, Any]) -> None:
    """Lets later steps read the result of a change in place instead of the changed value under its old name.

    Raises:
        ValueError: The change happens in one mode alone, and a step of both modes reads what it has changed.
    """
    latest: dict[str, str] = {}
    in_place: dict[tuple, list[str]] = {}  # place -> names of the values that lie there
    for number, step in enumerate(graph.steps):
        if any(name in latest for name in step.reads):
            arguments = substitute((step.args, dict(step.kwargs)), lambda ref: Ref(latest.get(ref.name, ref.name)))
            graph.steps[number] = replace(step, args=arguments[0], kwargs=arguments[1])
            for name in graph.steps[number].reads:
                if name in graph.modes and graph.modes.get(step.name) != graph.modes[name]:
                    raise ValueError(
                        f"nothing can be pruned exactly: '{name}' changes a value in place in one mode alone"
                    )
        result = values.get(step.name)
        if isinstance(result, Tensor):
            names = in_place.setdefault(_place(result), [])
            if step.name in graph.in_place:
                latest.update(dict.fromkeys(names, step.name))
            names.append(step.name)


def _place(value: Tensor) -> tuple:
    return value.data_ptr(), value.shape, value.stride(), value.dtype
