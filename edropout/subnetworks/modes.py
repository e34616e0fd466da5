"""One list of steps for what a network computes in train and in eval mode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from edropout.subnetworks.graph import Ref, Step, substitute


class ModeSwitch(nn.Module):
    """A function, or a method by name, whose arguments depend on train or eval mode: `F.dropout(x, training=...)`.

    Args:
        target: What is called.
        train_args: Its (args, kwargs) in train mode.
        eval_args: Its (args, kwargs) in eval mode.
        owner: Name of the module whose code calls it and whose mode counts.
    """

    def __init__(self, target: Callable | str, train_args: tuple, eval_args: tuple, owner: str) -> None:
        super().__init__()
        self.target, self.train_args, self.eval_args, self.owner = target, train_args, eval_args, owner

    def forward(self, *values: Any) -> Any:
        """Calls the function on `values`, which take the places of the references in order of appearance."""
        args, kwargs = self.train_args if self.training else self.eval_args
        by_name = dict(zip(Step("", "", None, args, kwargs).reads, values, strict=True))
        args, kwargs = substitute((args, kwargs), lambda ref: by_name[ref.name])
        if isinstance(self.target, str):
            return getattr(args[0], self.target)(*args[1:], **kwargs)
        return self.target(*args, **kwargs)


def set_switches(modules: Mapping[str, nn.Module], model: nn.Module) -> None:
    """Gives the functions that depend on the mode the mode of the module of `model` whose code calls them."""
    for module in modules.values():
        if isinstance(module, ModeSwitch):
            module.train(model.get_submodule(module.owner).training)


@dataclass(frozen=True)
class Reading:
    """The computation in one mode.

    Attributes:
        steps: In execution order.
        constants: Tensors that the code makes on the way, by the names that torch.fx gives them.
        owners: step -> name of the module whose code it belongs to.
        inside: Name of a module that was followed -> what its calls consist of.
    """

    steps: list[Step]
    constants: dict[str, Tensor]
    owners: dict[str, str]
    inside: dict[str, list[tuple]]


@dataclass
class Merged:
    """The computation in both modes.

    Attributes:
        steps: In execution order of either mode; the output in eval mode comes last.
        modes: Of the steps that belong to one mode alone: name of the module whose mode counts, and this mode.
        switches: The modules that steps call for functions whose constants depend on the mode.
    """

    steps: list[Step] = field(default_factory=list)
    modes: dict[str, tuple[str, bool]] = field(default_factory=dict)
    switches: dict[str, ModeSwitch] = field(default_factory=dict)


def merge(train: Reading, evaluate: Reading) -> Merged:
    """Finds the steps of eval mode among those of train mode; what has no counterpart runs in its own mode alone.

    Steps are the same if they call the same with the results of the same steps; constants of functions may differ.
    """
    found, names, done = Merged(), dict[str, str](), 0
    places: dict[tuple, list[int]] = {}
    for place, step in enumerate(train.steps):
        places.setdefault(_key(step), []).append(place)

    def decider(owner: str) -> str:
        """The innermost module around a step that runs in both modes: its code decides."""
        while owner and not (owner in train.inside and owner in evaluate.inside):
            owner = owner.rpartition(".")[0]
        return owner

    def of_one_mode(steps: Iterable[Step], reading: Reading, training: bool) -> None:
        for step in steps:
            name = names.get(step.name, step.name) if reading is evaluate else step.name
            found.steps.append(replace(step, name=name))
            found.modes[name] = decider(reading.owners[step.name]), training

    taken = {step.name for step in train.steps}
    for original in evaluate.steps:
        args, kwargs = substitute((original.args, dict(original.kwargs)), lambda ref: Ref(names[ref.name]))
        step = replace(original, args=args, kwargs=kwargs)
        place = next((p for p in places.get(_key(step), ()) if p >= done and _fits(train.steps[p], step)), None)
        if place is None:
            names[step.name] = f"{step.name}_in_eval_mode" if step.name in taken else step.name
            of_one_mode([step], evaluate, False)
            continue
        of_one_mode(train.steps[done:place], train, True)
        common, done = train.steps[place], place + 1
        names[step.name] = common.name
        if _differ(common, step):
            calls = (common.args, dict(common.kwargs)), (step.args, dict(step.kwargs))
            switch = f"mode_{common.name}"
            found.switches[switch] = ModeSwitch(common.target, *calls, train.owners[common.name])
            reads = tuple(Ref(read) for read in common.reads)
            common = replace(common, kind="module", target=switch, args=reads, kwargs={})
        found.steps.append(common)
    of_one_mode(train.steps[done:], train, True)
    found.steps.sort(key=lambda step: step.kind == "output" and found.modes.get(step.name, ("", False))[1] is False)
    return found


def _key(step: Step) -> tuple:
    return step.kind, step.target, tuple(step.reads)


def _fits(one: Step, other: Step) -> bool:
    return one.kind in ("function", "method") or not _differ(one, other)


def _differ(one: Step, other: Step) -> bool:
    return (one.args, one.kwargs) != (other.args, other.kwargs)
