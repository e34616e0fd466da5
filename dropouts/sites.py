"""Puts layers of the dropout family into a network, and sums what they add to its loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dropouts.plain import Before

OWN = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
Kind = type[nn.Module] | tuple[type[nn.Module], ...]
READERS = (nn.Linear, nn.RNNBase)
"""Layers that dropout stands in front of, unless a method says otherwise: linear and recurrent ones."""


def replace(network: nn.Module, make: Callable[[nn.Module], nn.Module], kind: Kind = nn.Dropout) -> nn.Module:
    """Puts `make(module)` in the place of every module of a kind; a module that stands in several places is made once.

    Args:
        network: Changed in place, unless it is itself of that kind.
        make: From the old module to the new one, or to itself where it should stay. A layer that holds weights takes
            over the old module's parameters. The new one moves to their device and keeps the mode, training or not.
        kind: What is replaced: nn.Dropout, or nn.Linear, say, for methods that act on weights.

    Returns:
        The network, with its new layers.

    Raises:
        ValueError: the network has no module of that kind.
    """
    made: dict[nn.Module, nn.Module] = {}
    names = [name for name, module in network.named_modules(remove_duplicate=False) if isinstance(module, kind)]
    if not names:
        raise ValueError(
            f"{type(network).__name__} has no {_names(kind)}: nothing to put another layer in the place of"
        )
    for name in names:
        old = network.get_submodule(name)
        if old not in made:
            new = make(old)
            reference = next(old.parameters(), next(network.parameters(), torch.empty(0)))
            made[old] = new if new is old else new.to(reference.device).train(old.training)
        if name == "":
            return made[old]
        network.set_submodule(name, made[old])
    return network


def put_before(
    network: nn.Module,
    make: Callable[[nn.Module], nn.Module],
    kind: Kind = READERS,
    *,
    inputs: bool = False,
) -> nn.Module:
    """Puts `make(reader)` in front of every layer of a kind that reads hidden units, as a `Before`.

    For networks whose authors left no nn.Dropout where one is wanted.

    Args:
        network: Changed in place, unless it is itself of that kind.
        make: From a reader to the layer of the family that acts on what it reads.
        kind: READERS, or nn.Conv2d, say, for methods that act on feature maps.
        inputs: Have one in front of the first layer too if that is linear: its inputs are units like others.

    Returns:
        The network, with its new layers.

    Raises:
        ValueError: the network has no such layer.
    """
    chosen = set(readers(network, kind, inputs=inputs))
    return replace(network, lambda layer: Before(make(layer), layer) if layer in chosen else layer, kind)


def readers(network: nn.Module, kind: Kind = READERS, *, inputs: bool = False) -> list[nn.Module]:
    """The layers of a kind that read hidden units: all but the one that reads the network's input.

    That is the first that has parameters, in the order of definition; with `inputs` it counts too if it is linear.

    Raises:
        ValueError: the network has no such layer.
    """
    first = next((module for module in network.modules() if any(True for _ in module.parameters(recurse=False))), None)
    if inputs and isinstance(first, nn.Linear):
        first = None
    found = [module for module in network.modules() if isinstance(module, kind) and module is not first]
    if not found:
        raise ValueError(
            f"{type(network).__name__} has no {_names(kind)} that reads hidden units: no place for dropout"
        )
    return found


def switch_off(network: nn.Module) -> nn.Module:
    """Sets the rate of the network's own nn.Dropout modules to zero, for those that would come on top of a method's."""
    for module in network.modules():
        if isinstance(module, OWN):
            module.p = 0.0
    return network


def penalty(network: nn.Module) -> Tensor:
    """Sum of the penalties of a network's layers for one pass, zero if none has any.

    A layer's `penalty()` is a Kullback-Leibler divergence or another term of a prior, not divided by the number of
    training examples; the loss of a batch is its mean loss plus `penalty(network)` over that number. A layer answers
    for the layers inside it.

    Returns:
        A scalar on the device of the network's first parameter.
    """
    reference = next(network.parameters(), torch.empty(0))
    terms = list(dict.fromkeys(_answers(network, "penalty")))
    return torch.stack([term() for term in terms]).sum() if terms else reference.new_zeros(())


def kept_share(network: nn.Module) -> float:
    """Share of weights or units that are not pruned, of all that the network's layers could prune; one if none can."""
    kept = [answer() for answer in dict.fromkeys(_answers(network, "kept"))]
    return sum(int(one.sum()) for one in kept) / sum(one.numel() for one in kept) if kept else 1.0


def _names(kind: Kind) -> str:
    return " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))


def _answers(module: nn.Module, name: str) -> Iterator[Callable[[], Tensor]]:
    own: Any = getattr(module, name, None)
    if own is not None:
        yield own
    else:
        for child in module.children():
            yield from _answers(child, name)
