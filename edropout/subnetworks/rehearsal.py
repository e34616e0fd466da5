"""What an optimiser keeps for each weight, found out by steps on stand-ins, after which everything is as it was."""

from __future__ import annotations

import copy
import itertools
import random
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim import optimizer as torch_optimizer

from edropout.subnetworks.graph import tensors
from edropout.subnetworks.part import Axes

# Sides of small stand-ins, all different, so that a state's shape tells which axis of the weight it follows.
SIDES = (7, 5, 3, 2, 4)
# Steps on them: a state may be made later than at the first one, as the slow weights of Lookahead are.
STEPS = 32
_CHANGEABLE = (dict, list, Tensor, random.Random)
PRE_HOOKS, POST_HOOKS = "_optimizer_step_pre_hooks", "_optimizer_step_post_hooks"


@dataclass(frozen=True)
class Rule:
    """How a state belongs to its parameter.

    Attributes:
        axes: What each of its axes follows, all None for what the whole parameter shares; None if nothing is known.
        fill: What a weight has that was never stepped: a number, or "weight" for the weight itself; None if unknown.
    """

    axes: Axes | None
    fill: float | str | None = None

    @property
    def shared(self) -> bool:
        """True if there is one value for the whole parameter."""
        return self.axes is not None and all(axis is None for axis in self.axes)

    @property
    def known(self) -> bool:
        """True if a state of the whole parameter can be made of one of its part."""
        return self.shared or (self.axes is not None and self.fill is not None)


Rules = dict[nn.Parameter, dict[str, Rule]]


def nested(optimizer: Any) -> list[Any]:
    """An optimiser and those that it wraps, the outermost first."""
    found = [optimizer]
    for part in found:  # grows on the way
        inside = (value for name, value in vars(part).items() if name not in ("state", "param_groups", "defaults"))
        found += [entry for value in inside for entry in _optimizers(value) if not any(entry is one for one in found)]
    return found


def _optimizers(value: Any) -> list[Optimizer]:
    if isinstance(value, Optimizer):
        return [value]
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [found for entry in entries for found in _optimizers(entry)]


def all_states(optimizer: Any) -> list[dict[nn.Parameter, dict[str, Any]]]:
    """What an optimiser and those that it wraps keep for parameters, each once."""
    return list({id(part.state): part.state for part in nested(optimizer)}.values())


def all_groups(optimizer: Any) -> list[dict[str, Any]]:
    """The parameter groups of an optimiser and of those that it wraps, each once."""
    return list({id(group): group for part in nested(optimizer) for group in part.param_groups}.values())


def all_parameters(optimizer: Any) -> list[nn.Parameter]:
    """Their parameters, each once."""
    return list(dict.fromkeys(parameter for group in all_groups(optimizer) for parameter in group["params"]))


def find_rules(optimizer: Any, closure: Callable[[], Any] | None) -> Rules:
    """Finds how each state that an optimiser makes belongs to its parameter.

    It steps on small stand-ins, without gradients and weight decay (which shows what a weight has that was never
    stepped) and with random gradients, and once on stand-ins of full size, as some optimisers look at sizes.

    Args:
        optimizer: Anything that steps. A wrapper without states of its own is not stepped but what it wraps.
        closure: What will be handed to `step`; it is not called.

    Raises:
        ValueError: It cannot step on other shapes than those of its parameters. Nothing has changed.
    """
    wanted = all_parameters(optimizer)
    while len(inside := nested(optimizer)) > 1 and getattr(optimizer, "state", None) is inside[1].state:
        optimizer = inside[1]
    size = {parameter: parameter.shape for parameter in wanted}
    small = {parameter: torch.Size(SIDES[: parameter.ndim]) for parameter in wanted}
    at_rest = _watch(optimizer, closure, small, steps=STEPS, moving=False)
    moving = _watch(optimizer, closure, small, steps=STEPS, moving=True)
    full = _watch(optimizer, closure, size, steps=1, moving=False)
    found: Rules = {}
    for parameter in wanted:
        seen = [kinds.get(parameter, {}) for kinds in (at_rest, moving, full)]
        found[parameter] = {
            key: _rule(key, parameter, small[parameter], *seen) for key in {**seen[2], **seen[1], **seen[0]}
        }
    return found


@dataclass(frozen=True)
class _Seen:
    """A state when it was first seen: its shape, () for one value, None for what is no single tensor; and its fill."""

    shape: torch.Size | None
    fill: float | str | None


def _rule(key: str, parameter: nn.Parameter, small: torch.Size, at_rest: dict, moving: dict, full: dict) -> Rule:
    """What the three ways of looking at a state say together."""
    size = parameter.shape
    ways = [_ways(seen[key].shape, of) for seen, of in ((at_rest, small), (moving, small), (full, size)) if key in seen]
    # Ways that differ only in axes that are never cut are alike.
    alike = {
        tuple(axis if axis in (0, 1) and size[axis] > 1 else None for axis in w): w for w in set.intersection(*ways)
    }
    fill = next((seen[key].fill for seen in (at_rest, full) if key in seen), None)
    return Rule(next(iter(alike.values())) if len(alike) == 1 else None, fill)


def _ways(shape: torch.Size | None, parameter: torch.Size) -> set[Axes]:
    """All ways in which the axes of a state of this shape can follow those of a parameter, in order."""
    if shape is None:
        return set()
    choices = [[None] * (side == 1) + [a for a, full in enumerate(parameter) if full == side] for side in shape]
    found = set()
    for axes in itertools.product(*choices):
        followed = [axis for axis in axes if axis is not None]
        in_place = all(axis in (None, place) for place, axis in enumerate(axes))
        if followed == sorted(set(followed)) and (in_place or len(shape) < len(parameter)):
            found.add(axes)
    return found


def _watch(
    optimizer: Any,
    closure: Callable[[], Any] | None,
    shapes: dict[nn.Parameter, torch.Size],
    *,
    steps: int,
    moving: bool,
) -> dict[nn.Parameter, dict[str, _Seen]]:
    """Takes steps on stand-ins of the given shapes; returns what is seen of the states of each parameter."""
    chosen = _representatives(optimizer, shapes)
    try:
        with _as_it_was(optimizer):
            return _steps(optimizer, closure, chosen, shapes, steps, moving, fresh=True)
    except KeyError:  # its states were made when it was
        pass
    except Exception as error:  # whatever the optimiser's own code raises
        raise _refusal(optimizer, error) from error
    try:
        with _as_it_was(optimizer):
            return _steps(optimizer, closure, chosen, shapes, steps, moving, fresh=False)
    except Exception as error:
        raise _refusal(optimizer, error) from error


def _refusal(optimizer: Any, error: Exception) -> ValueError:
    return ValueError(f"{type(optimizer).__name__} cannot step on what is left of a network: {error}")


def _representatives(optimizer: Any, shapes: dict[nn.Parameter, torch.Size]) -> dict[nn.Parameter, nn.Parameter]:
    """One parameter for all that are in the same groups and have stand-ins of the same shape and dtype."""
    first: dict[tuple, nn.Parameter] = {}
    groups = all_groups(optimizer)
    member: dict[nn.Parameter, list[int]] = {parameter: [] for parameter in shapes}
    for number, group in enumerate(groups):
        for parameter in group["params"]:
            member[parameter].append(number)
    return {
        p: first.setdefault((tuple(member[p]), shape, p.dtype, p.device, p.requires_grad), p)
        for p, shape in shapes.items()
    }


def _steps(
    optimizer: Any,
    closure: Callable[[], Any] | None,
    chosen: dict[nn.Parameter, nn.Parameter],
    shapes: dict[nn.Parameter, torch.Size],
    steps: int,
    moving: bool,
    *,
    fresh: bool,
) -> dict[nn.Parameter, dict[str, _Seen]]:
    stepped = list(dict.fromkeys(chosen.values()))
    for owner in nested(optimizer):
        if "state" in vars(owner):
            old, owner.state = owner.state, defaultdict(dict)
            for parameter in () if fresh else stepped:
                if parameter in old:
                    owner.state[parameter] = _like(old[parameter], parameter.shape, shapes[parameter])
    for group in all_groups(optimizer):
        group["params"] = [parameter for parameter in group["params"] if chosen[parameter] is parameter]
        if "weight_decay" in group:
            group["weight_decay"] = 0.0
    for parameter in chosen:  # also those that are in no group now, as an optimiser may know them from elsewhere
        parameter.grad = None
        parameter.data = torch.randn(shapes[parameter], dtype=parameter.dtype, device=parameter.device)

    def again() -> Tensor:
        for parameter in stepped:
            if parameter.requires_grad:
                parameter.grad = torch.randn_like(parameter) if moving else torch.zeros_like(parameter)
        return torch.zeros(())

    seen: dict[nn.Parameter, dict[str, _Seen]] = {parameter: {} for parameter in stepped}
    for _ in range(steps):
        again()
        before = {parameter: parameter.detach().clone() for parameter in stepped}
        optimizer.step(*() if closure is None else (again,))
        for states in all_states(optimizer):
            for parameter in stepped:
                for key, value in states.get(parameter, {}).items():
                    seen[parameter].setdefault(key, _Seen(_shape(value), _fill(value, before[parameter], parameter)))
    return {parameter: seen[representative] for parameter, representative in chosen.items()}


def _like(state: dict[str, Any], full: torch.Size, shape: torch.Size) -> dict[str, Any]:
    """A state for a stand-in that resembles one that is there already."""
    return {
        key: value.new_full(shape, float(value.flatten()[0]))
        if isinstance(value, Tensor) and value.ndim and value.shape == full
        else copy.deepcopy(value)
        for key, value in state.items()
    }


def _shape(value: Any) -> torch.Size | None:
    if isinstance(value, Tensor) and value.ndim:
        return value.shape
    return torch.Size() if is_single(value) else None


def is_single(value: Any) -> bool:
    """True for what holds no tensor of more than one entry."""
    return all(tensor.numel() == 1 for tensor in tensors(value))


def _fill(value: Any, *weights: Tensor) -> float | str | None:
    if not isinstance(value, Tensor) or value.numel() == 0:
        return None
    if any(value.shape == weight.shape and torch.equal(value.to(weight.dtype), weight) for weight in weights):
        return "weight"
    first = value.flatten()[0]
    return float(first) if bool((value == first).all()) else None


@contextmanager
def _as_it_was(optimizer: Any) -> Iterator[None]:
    """Restores the optimiser, its parameters and all random numbers; hooks are not called in between."""
    owners, parameters = nested(optimizer), all_parameters(optimizer)
    tables: list[Any] = [*map(vars, owners), *all_groups(optimizer)]
    saved = [dict(table) for table in tables]
    weights = [(parameter, parameter.data, parameter.grad) for parameter in parameters]
    everywhere: list[Any] = [torch_optimizer._global_optimizer_pre_hooks, torch_optimizer._global_optimizer_post_hooks]
    hooks, python = [dict(table) for table in everywhere], random.getstate()
    same = {id(one): one for one in (*owners, *parameters)}
    devices = {parameter.device for parameter in parameters if parameter.device.type == "cuda"}
    try:
        for owner in owners:
            for name, value in list(vars(owner).items()):
                if name in (PRE_HOOKS, POST_HOOKS):
                    vars(owner)[name] = OrderedDict()
                elif name not in ("state", "param_groups") and isinstance(value, _CHANGEABLE):
                    vars(owner)[name] = copy.deepcopy(value, dict(same))
        for group in all_groups(optimizer):
            group.update({k: copy.deepcopy(v, dict(same)) for k, v in group.items() if isinstance(v, _CHANGEABLE)})
        for table in everywhere:
            table.clear()
        with torch.random.fork_rng(devices):
            yield
    finally:
        for table, entries in zip([*tables, *everywhere], [*saved, *hooks], strict=True):
            table.clear()
            table.update(entries)
        for parameter, data, gradient in weights:
            parameter.grad = None
            parameter.data = data
            parameter.grad = gradient
        random.setstate(python)
