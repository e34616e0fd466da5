"""An optimiser step that sees the pruned network's parameters; dropped weights and their states keep their bits."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edropout.subnetworks.hooks import hooks, without_hooks
from edropout.subnetworks.own import Own, Owned, alike, own_of
from edropout.subnetworks.part import Part
from edropout.subnetworks.rehearsal import (
    POST_HOOKS,
    PRE_HOOKS,
    Rule,
    Rules,
    all_groups,
    all_parameters,
    all_states,
    find_rules,
    is_single,
)
from edropout.subnetworks.watched import unwatch_

Parts = Mapping[nn.Parameter, Part]
UNKNOWN = Rule(None)


class KeptStep:
    """Steps of any optimiser in which each cut parameter, its gradient and its states are the pruned network's.

    They are gathered before a step, under the parameter's own identity, and written back after it. So an optimiser, and
    what it wraps, does what it would do for the pruned network, whatever it looks at. The memory for that is kept: to
    ask for it anew at each step would cost more than the gathering. Once the state is final, parameters and states are
    gathered once and written back when somebody looks at them (`Own`); gradients come and go at each step.
    """

    def __init__(self) -> None:
        self._memory: dict[tuple, Tensor] = {}
        self._rules: weakref.WeakKeyDictionary[Any, tuple[list, Rules]] = weakref.WeakKeyDictionary()
        self._last: dict[nn.Parameter, Part] = {}
        self._owned: Owned = {}

    def own(self, parts: Parts) -> dict[nn.Parameter, Own]:
        """What is left of the parameters that are cut, for a state that is final."""
        return {p: own_of(self._owned, p, "", p, part, tuple(range(p.ndim))) for p, part in parts.items()}

    def prepare(self, optimizer: Any, parts: Parts, *, final: bool, closure: Callable | None = None) -> Rules:
        """Finds out what the optimiser keeps for each weight, and whether its step would be exact.

        Args:
            optimizer: What will step.
            parts: What is left of the parameters that are cut.
            final: True if that will never change: states of unknown shape are then those of the pruned network.
            closure: What `step` will be given.

        Raises:
            ValueError: It would not. Nothing has changed.
        """
        rules = self.rules(optimizer, closure)
        kept = [entry for states in all_states(optimizer) for entry in states.items() if entry[0] in rules]
        for parameter, keys in [*rules.items(), *kept]:
            for key in keys:
                if not (final or rules[parameter].get(key, UNKNOWN).known):
                    raise ValueError(
                        f"{type(optimizer).__name__} cannot step on parts of matrices that change from step to step: "
                        f"what its state '{key}' belongs to is unknown. Freeze the search before, or use an optimiser "
                        "that treats each weight by itself, as SGD, Adam or Adadelta do"
                    )
        for parameter, state in kept if final else ():
            of_any_shape = any(rules[parameter].get(key, UNKNOWN).axes is None for key in state)
            if of_any_shape and not _alike(self._last.get(parameter), parts.get(parameter)):
                raise ValueError(f"{type(optimizer).__name__} has states of another sub-network: make it anew")
        return rules

    def rules(self, optimizer: Any, closure: Callable | None) -> Rules:
        """How its states belong to parameters: found once, and again when parameters or kinds of settings change."""
        settings = [
            (key, bool(value)) if isinstance(value, bool | int | float | None) else (key, type(value))
            for group in all_groups(optimizer)
            for key, value in group.items()
        ]
        with torch._C.DisableTorchFunctionSubclass():  # asks for no contents, at each step
            kinds = [(id(p), p.shape, p.dtype, p.device) for p in all_parameters(optimizer)]
        look = [settings, kinds, closure is None]
        if optimizer not in self._rules or self._rules[optimizer][0] != look:
            self._rules[optimizer] = look, find_rules(optimizer, closure)
        return self._rules[optimizer][1]

    def __call__(
        self,
        optimizer: Any,
        parts: Callable[[], Parts],
        rules: Rules,
        *,
        final: bool,
        scaler: torch.amp.GradScaler | None = None,
        closure: Callable[[], Any] | None = None,
    ) -> Any:
        """One step, by way of the scaler if there is one, which may leave it out; returns what `step` returns.

        Args:
            optimizer: What steps; its hooks see the whole parameters, before and after the exchange.
            parts: Says what is left of the parameters that are cut; a closure may change it.
            rules: What `prepare` has returned for this step.
            final: As for `prepare`.
            scaler: Unscales the gradients, and skips the step if one is not finite.
            closure: Computes gradients anew, on the whole parameters.
        """
        exchange = _Exchange(optimizer, rules, self._owned if final else None, self._memory)

        def computed() -> Any:
            exchange.leave()
            try:
                return closure()
            finally:
                exchange.enter(parts())

        step, own = optimizer.step, vars(optimizer).get("step")

        def exchanged(*args: Any, **kwargs: Any) -> Any:
            for owner, hook in hooks(optimizer, PRE_HOOKS):
                args, kwargs = hook(owner, args, kwargs) or (args, kwargs)
            exchange.enter(parts())
            try:
                with without_hooks(optimizer):
                    found = step(*args, **kwargs)
            finally:
                exchange.leave()
            for owner, hook in hooks(optimizer, POST_HOOKS):
                hook(owner, args, kwargs)
            return found

        optimizer.step = exchanged
        try:
            arguments = () if closure is None else (computed,)
            found = optimizer.step(*arguments) if scaler is None else scaler.step(optimizer, *arguments)
        finally:
            del optimizer.step
            if own is not None:
                optimizer.step = own
        self._last.update(parts())
        return found

    def carry_(self, optimizer: Any, other: Any, pairs: Mapping[nn.Parameter, nn.Parameter], parts: Parts) -> None:
        """Gives an optimiser of the pruned network the states that one of the whole network has for what is left.

        Args:
            optimizer: The whole network's.
            other: The pruned network's, of the same class and with the same settings.
            pairs: parameter of the whole network -> parameter of the pruned network.
            parts: What is left of the parameters that are cut.

        Raises:
            ValueError: They do not wrap equally many optimisers.
        """
        rules = self._rules[optimizer][1] if optimizer in self._rules else self.rules(optimizer, None)
        if len(all_states(optimizer)) != len(all_states(other)):
            raise ValueError(f"{type(other).__name__} cannot take over the states of {type(optimizer).__name__}")
        for states, taken in zip(all_states(optimizer), all_states(other), strict=True):
            for parameter, twin in pairs.items():
                part = parts.get(parameter)
                for key, value in states.get(parameter, {}).items():
                    rule = rules[parameter].get(key, UNKNOWN)
                    cut = part is not None and _follows(rule, value)
                    taken[twin][key] = part.take(value, rule.axes) if cut else copy.deepcopy(value)


class _Exchange:
    """Puts what is left in the place of parameters, gradients and states, and back."""

    def __init__(
        self, optimizer: Any, rules: Rules, owned: dict[tuple, Own] | None, memory: dict[tuple, Tensor]
    ) -> None:
        self.name, self.parameters = type(optimizer).__name__, all_parameters(optimizer)
        self.all_states = all_states(optimizer)
        self.rules, self.owned, self.memory = rules, owned, memory
        self.whole: list[tuple[nn.Parameter, Part, Tensor, Tensor | None, int]] = []
        self.states: dict[tuple[int, nn.Parameter], dict[str, Tensor]] = {}

    def enter(self, parts: Parts) -> None:
        """Gathers what is left."""
        for parameter in self.parameters:
            if parameter not in parts:
                continue
            part, gradient, every = parts[parameter], parameter.grad, tuple(range(parameter.ndim))
            cut = self._take(parameter, part, "", parameter, every)
            unwatch_(parameter)
            whole = parameter.data
            cut_gradient = None if gradient is None else self._take(parameter, part, "grad", gradient, every)
            for number, states in enumerate(self.all_states):
                if parameter in states:
                    state, rules = states[parameter], self.rules[parameter]
                    saved = {k: v for k, v in state.items() if _follows(rules.get(k, UNKNOWN), v)}
                    for key, value in saved.items():
                        state[key] = self._take(parameter, part, (number, key), value, rules[key].axes)
                    self.states[number, parameter] = saved
            parameter.grad = None
            parameter.data = cut
            parameter.grad = cut_gradient
            self.whole.append((parameter, part, whole, gradient, 0 if gradient is None else cut_gradient._version))

    def leave(self) -> None:
        """Writes back what has become of it.

        Raises:
            ValueError: A state of unknown kind has turned up; everything else has been written back.
        """
        late = None
        while self.whole:
            parameter, part, whole, gradient, version = self.whole.pop()
            every, cut, cut_gradient = tuple(range(parameter.ndim)), parameter.data, parameter.grad
            parameter.grad = None
            parameter.data = whole
            if cut_gradient is not None:
                if gradient is None or cut_gradient._version != version:
                    gradient = torch.zeros_like(whole) if gradient is None else gradient
                    part.put_(gradient, cut_gradient, every)
                parameter.grad = gradient
            for number, states in enumerate(self.all_states):
                late = self._put_states(number, states.get(parameter, {}), parameter, part, whole) or late
            del whole  # others that hold this memory count
            self._put(parameter, part, "", parameter, cut, every)
        self.states = {}
        if late is not None:
            raise ValueError(f"{self.name} has made a state '{late}' that it never made before: "
                             "what it belongs to is unknown")  # fmt: skip

    def _put_states(self, number: int, state: dict, parameter: nn.Parameter, part: Part, whole: Tensor) -> str | None:
        """Makes states of the whole parameter; returns the name of one that is of unknown kind."""
        late = None
        saved = self.states.get((number, parameter), {})
        for key, value in state.items():
            rule = self.rules[parameter].get(key, UNKNOWN)
            if _follows(rule, value):
                state[key] = saved.pop(key) if key in saved else _filled(value, rule, part, whole)
                self._put(parameter, part, (number, key), state[key], value, rule.axes)
            elif rule.axes is None and self.owned is None and not is_single(value):
                late = key
        return late

    def _take(self, parameter: nn.Parameter, part: Part, name: Any, value: Tensor, axes: tuple) -> Tensor:
        own = None if self.owned is None else self.owned.get((parameter, name))
        if own is not None and own.holds(value, part):
            return own.take()
        if value.shape != torch.Size(part.whole(axes)):
            raise ValueError(f"{self.name} holds a state of shape {tuple(value.shape)} for a "
                             f"weight of shape {tuple(parameter.shape)}: make it anew")  # fmt: skip
        if self.owned is not None and name != "grad":
            return own_of(self.owned, parameter, name, value, part, axes).take()
        value = value.detach()
        if value.ndim < parameter.ndim or None in axes:
            return part.take(value, axes)
        size = torch.Size(part.shape).numel()
        memory = self.memory.get((parameter, name))
        if memory is None or memory.numel() < size or (memory.dtype, memory.device) != (value.dtype, value.device):
            memory = self.memory[parameter, name] = value.new_empty(size)
        return part.take(value, axes, memory)

    def _put(self, parameter: nn.Parameter, part: Part, name: Any, whole: Tensor, value: Tensor, axes: tuple) -> None:
        if self.owned is None:
            part.put_(whole.data, value, axes)
        else:
            own_of(self.owned, parameter, name, whole, part, axes).put(value)


def _follows(rule: Rule, value: Any) -> bool:
    return rule.axes is not None and not rule.shared and isinstance(value, Tensor)


def _filled(value: Tensor, rule: Rule, part: Part, whole: Tensor) -> Tensor:
    """A state of the whole parameter as it is before the first step."""
    if rule.fill == "weight":
        return whole.to(value.dtype, copy=True)
    fill = 0.0 if rule.fill is None else rule.fill  # None: what is left never changes, so nobody will ask for it
    if value.ndim == whole.ndim and part.whole(rule.axes) == list(whole.shape):
        return torch.full_like(whole, fill, dtype=value.dtype)
    return value.new_full(part.whole(rule.axes), fill)


def _alike(last: Part | None, part: Part | None) -> bool:
    """True unless the last step is known to have left other entries."""
    return last is None or last is part or (part is not None and alike(last, part))
