"""Prunable units of any module and their places in the pruning state vector."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from edropout.subnetworks.graph import Step
from edropout.subnetworks.reach import reached_by_input, reaching_output, steps_with_weights
from edropout.subnetworks.roles import call_counts, hidden_at_positions, is_convolution, is_linear, norm_partners
from edropout.subnetworks.tracing import trace


class Units:
    """Maps a pruning state, one bool per unit, to the layers of a network and back.

    A unit is a filter of a convolution with its batch-norm channel, or an input feature of a linear layer. The layers
    appear in execution order. By default every filter counts except those of the stem (a convolution that reads the
    input) and of the output layer, and the inputs of the last linear layer. Linear layers that run at every position of
    an image or a sequence are convolutions of one pixel: the features between two of them count too. The published
    state sizes of the ResNets (6208, 9920, 32448, 58560; Salehinejad & Valaee, arXiv:2006.04270, code) count the stem
    and, as units of their own, the batch norms of the shortcuts: `prune_stem=True, shortcut_norms=True`. AlexNet's
    18662 is 18560 with `prune_stem=True, hidden_linear=True` plus its 102 outputs, which are never pruned.

    Args:
        model: Any network that torch.fx can follow.
        prune_stem: Count the filters of the convolutions that read the network's input.
        hidden_linear: Count the inputs of all linear layers.
        final_linear: Count the inputs of the last linear layer.
        shortcut_norms: Count the batch norm of a 1x1 shortcut convolution as units of their own; such a filter is
            computed only if both of its units are kept.
        multiple_of: Keep a multiple of so many units of each layer, or all (`repair_`): widths that a processor likes.
            The inputs of the last linear layer are no units then; they follow the filters that write them. Layers that
            share channels, as a depthwise convolution with the one before, keep what all of them keep.
        example: (batch, ...) one input, on the model's device, for a network that asks for sizes.

    Attributes:
        sizes: layer -> number of its units, in the order of the state.
        whole: Layers that turned out, once shapes were known, not to be cut exactly: all their units always stay.

    Raises:
        ValueError: Nothing in `model` can be pruned, or torch.fx cannot follow it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        prune_stem: bool = False,
        hidden_linear: bool = False,
        final_linear: bool = True,
        shortcut_norms: bool = False,
        multiple_of: int = 1,
        example: Tensor | None = None,
    ) -> None:
        if multiple_of < 1 or (multiple_of > 1 and shortcut_norms):
            raise ValueError(f"multiple_of must be at least 1, and 1 with shortcut_norms, not {multiple_of}")
        final_linear = final_linear and multiple_of == 1
        graph, modules = trace(model, example)
        partners = norm_partners(graph, modules)
        counts = call_counts(graph)
        in_both_modes = [step for step in graph.steps if step.name not in graph.modes]
        calls = [s for s in in_both_modes if s.kind == "module" and counts[s.target] == 1]
        layers = [s for s in calls if is_convolution(modules[s.target]) or is_linear(modules[s.target])]
        linear = [s for s in layers if is_linear(modules[s.target])]
        users, with_weights = graph.users(), steps_with_weights(graph, modules, model)
        stems, outputs = reached_by_input(graph, with_weights), reaching_output(graph, with_weights)
        hidden = hidden_at_positions(graph, modules)
        self.sizes: dict[str, int] = {}
        self.shortcut_norms: dict[str, str] = {}
        self.whole: frozenset[str] = frozenset()
        self.multiple_of = multiple_of
        for step in layers:
            module = modules[step.target]
            if is_linear(module):
                if final_linear if step is linear[-1] else hidden_linear or step.name in hidden:
                    self.sizes[step.target] = module.in_features
                continue
            if (step.name in stems and not prune_stem) or step.name in outputs:
                continue
            self.sizes[step.target] = module.out_channels
            if shortcut_norms and _is_shortcut(step, users, modules):
                for norm in partners[step.target]:
                    self.sizes[norm] = module.out_channels
                    self.shortcut_norms[norm] = step.target
        if not self.sizes:
            raise ValueError(f"{type(model).__name__} has no unit that can be pruned")
        self.num_units = sum(self.sizes.values())
        if linear and not hidden_linear and [*self.sizes] == [linear[-1].target]:
            warnings.warn(f"{type(model).__name__} has no filters to drop besides those of a stem: its units are the "
                          f"{self.num_units} inputs of its last linear layer alone", stacklevel=2)  # fmt: skip

    def check(self, model: nn.Module) -> None:
        """Raises ValueError if these are the units of another network than `model`."""
        modules = dict(model.named_modules())
        for layer, size in self.sizes.items():
            weight = getattr(modules.get(layer), "weight", None)
            if weight is None or size != weight.shape[int(isinstance(modules[layer], nn.Linear))]:
                raise ValueError(f"the units are those of another network: {type(model).__name__} has no layer "
                                 f"'{layer}' of {size} units")  # fmt: skip

    def keep_whole(self, layers: Collection[str]) -> None:
        """Keeps all units of `layers`, which cannot be cut exactly, from the next `repair_` on.

        Raises:
            ValueError: There are no others.
        """
        if self.sizes.keys() <= set(layers):
            raise ValueError(f"nothing can be pruned exactly: what reads or makes the values of {_named(layers)} is "
                             "unknown")  # fmt: skip
        found = [layer for layer in self.sizes if layer in layers and layer not in self.whole]
        if found:
            self.whole |= set(found)
            warnings.warn(f"kept whole, as what reads or makes their values is unknown: {_named(found)}", stacklevel=2)

    def split(self, state: Tensor) -> dict[str, Tensor]:
        """Cuts a state, (num_units,) bool or (..., num_units), into views per layer.

        Raises:
            ValueError: The state has another length.
        """
        if state.shape[-1:] != (self.num_units,):
            raise ValueError(f"the state must have {self.num_units} units, not shape {tuple(state.shape)}")
        return dict(zip(self.sizes, state.split(list(self.sizes.values()), dim=-1), strict=True))

    def join(self, kept: Mapping[str, Tensor]) -> Tensor:
        """Makes the state of per-layer booleans, the inverse of `split`; a missing layer keeps all its units.

        Raises:
            ValueError: A layer is unknown or has another size.
        """
        for layer, mask in kept.items():
            if self.sizes.get(layer) != mask.shape[-1]:
                raise ValueError(f"layer '{layer}' has {self.sizes.get(layer, 'no')} units, not {mask.shape[-1]}")
        some = next(iter(kept.values()), torch.empty(0))
        ones = {layer: torch.ones(size, dtype=torch.bool, device=some.device) for layer, size in self.sizes.items()}
        return torch.cat([kept.get(layer, ones[layer]).bool() for layer in self.sizes], dim=-1)

    def kept(self, state: Tensor) -> dict[str, Tensor]:
        """Per-layer booleans as `removal` takes them: a shortcut's norm is merged into its filter, `whole` left out."""
        kept = {layer: mask for layer, mask in self.split(state).items() if layer not in self.whole}
        for norm, convolution in self.shortcut_norms.items():
            kept[convolution] = kept[convolution] & kept.pop(norm)
        return kept

    def repair_(self, states: Tensor, worth: Tensor | None = None) -> Tensor:
        """Switches on what must stay, in place: the first unit of every layer that keeps none, all those of `whole`.

        With `multiple_of` each layer goes to the nearest multiple.

        Args:
            states: (..., num_units) bool; a layer without units would cut the network in two, which no physically
                smaller layer can express.
            worth: (num_units,) of the units; the best that are dropped come back, the worst that are kept go. None to
                go round the layer from a place that the state says.
        """
        views = self.split(states)
        worths = {} if worth is None else self.split(worth)
        for layer, view in views.items():
            view[..., 0] |= ~view.any(-1)
            if self.multiple_of > 1:
                view[...] = _nearest(view, self.multiple_of, worths.get(layer))
            if layer in self.whole:
                view[...] = True
        for norm, convolution in self.shortcut_norms.items():
            empty = ~(views[norm] & views[convolution]).any(-1)
            views[norm][..., 0] |= empty
            views[convolution][..., 0] |= empty
        return states


def _nearest(view: Tensor, multiple_of: int, worth: Tensor | None) -> Tensor:
    """States of one layer, (..., units) bool, brought to the nearest multiple of kept units, at least one, or all."""
    size, count = view.shape[-1], view.sum(-1, keepdim=True)
    wanted = ((count + multiple_of // 2) // multiple_of * multiple_of).clamp(multiple_of, max(multiple_of, size))
    numbers = torch.arange(size, device=view.device)
    if worth is None:
        order = (numbers + (view * numbers).sum(-1, keepdim=True)) % size
    else:
        order = worth.argsort(stable=True).argsort()
    place = (view * size + order).argsort(-1, descending=True).argsort(-1)
    return place < wanted


def _named(layers: Collection[str]) -> str:
    return ", ".join(f"'{layer}'" for layer in sorted(layers))


def _is_shortcut(step: Step, users: Mapping[str, list[Step]], modules: Mapping[str, nn.Module]) -> bool:
    """True for a 1x1 convolution whose norm is added, without activation, and whose input also feeds other layers."""
    branches = users[step.reads[0]]
    if set(modules[step.target].kernel_size) != {1} or branches[0] is step or len(branches) < 2:
        return False
    norms = [user for user in users[step.name] if user.kind == "module"]
    return len(norms) == 1 and all(user.kind == "function" for user in users[norms[0].name])
