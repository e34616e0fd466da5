"""Lets units of a layer change places without changing what the network computes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dropouts.approximate.iteration import Place

Move = tuple[Tensor, int, int]  # A parameter, the side that follows the units, the number of gates on that side.


def given(layer: nn.Module) -> Iterator[Move]:
    """What follows the order of the units that a layer gives."""
    if isinstance(layer, nn.LSTM):
        yield from given_by_lstm(layer, layer.num_layers - 1)
    else:
        side = 1 if isinstance(layer, nn.Embedding) else 0
        yield from ((parameter, side, 1) for parameter in layer.parameters())


def given_by_lstm(layer: nn.LSTM, number: int) -> Iterator[Move]:
    """The same for one layer of an LSTM, whose recurrence reads them too."""
    for name in layer._all_weights[number]:
        yield getattr(layer, name), 0, 4
    yield getattr(layer, f"weight_hh_l{number}"), 1, 1


def read(layer: nn.Module, number: int = 0) -> Iterator[Move]:
    """What follows the order of the units that a layer, or one layer of an LSTM, reads."""
    yield getattr(layer, f"weight_ih_l{number}" if isinstance(layer, nn.LSTM) else "weight"), 1, 1


@torch.no_grad()
def permute_(moves: Iterable[Move], order: Tensor, optimizers: Iterable[Optimizer]) -> None:
    """Brings the units of some parameters, and what optimisers keep of them, into an order: (units,) int64."""
    for parameter, side, gates in moves:
        follow = [parameter.data]
        for optimizer in optimizers:
            state = optimizer.state.get(parameter, {}).values()
            follow += [v for v in state if isinstance(v, Tensor) and v.ndim > 0 and v.shape == parameter.shape]
        for value in follow:
            table = value.unflatten(side, (gates, -1))
            table.copy_(table.index_select(side + 1, order.to(value.device)))


def permute_places_(
    moves_of: Mapping[Place, list[Move]],
    whole: set[Tensor],
    optimizers: Iterable[Optimizer],
    generator: torch.Generator | None,
) -> None:
    """Draws an order for each place; one with a parameter that several layers share stays as it is."""
    for place, moves in moves_of.items():
        if not any(parameter in whole for parameter, *_ in moves):
            permute_(moves, torch.randperm(place.width, generator=generator), optimizers)
