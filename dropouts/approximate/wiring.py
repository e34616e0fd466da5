"""Ties places of dropout to the layers around them, and puts layers into a network that compute what is kept there."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from torch import nn

from dropouts.approximate import places
from dropouts.approximate.iteration import Iteration, Place
from dropouts.approximate.layers import CutEmbedding, CutLinear, Site, TiledLinear, Visit
from dropouts.approximate.lstm import CutLSTM
from dropouts.approximate.patterns import Pattern, Tiles
from dropouts.approximate.permutation import Move, given, given_by_lstm, read


@dataclass(frozen=True)
class Wiring:
    """Where a network drops units.

    Attributes:
        modules: The network's own modules by name, as they were.
        visits: The calls of each dropout module; None for one that stays as it is.
        givers: Place of the units that a layer gives.
        readers: Place of the units that a layer reads.
        inner: Places between the layers of an LSTM.
    """

    modules: dict[str, Any]
    visits: dict[str, list[Visit | None]]
    givers: dict[str, Place]
    readers: dict[str, Place]
    inner: dict[str, list[Place]]

    @property
    def places(self) -> list[Place]:
        """All of them, in the order of the network's dropout modules, then of its LSTMs."""
        visits = [visit for of_site in self.visits.values() for visit in of_site if visit is not None]
        return [visit.place for visit in visits] + [place for of_lstm in self.inner.values() for place in of_lstm]

    def moves(self) -> dict[Place, list[Move]]:
        """What follows the order of the units of a place; places with a layer on one side only have none."""
        found = {}
        for name, place in self.givers.items():
            readers = [self.modules[reader] for reader, of in self.readers.items() if of is place]
            if readers:
                found[place] = [*given(self.modules[name]), *(move for reader in readers for move in read(reader))]
        for name, inner in self.inner.items():
            for number, place in enumerate(inner):
                found[place] = [*given_by_lstm(self.modules[name], number), *read(self.modules[name], number + 1)]
        return found


def wire(network: nn.Module, rate: float | None, pattern: Pattern, *, recurrent: bool) -> Wiring:
    """Finds the places of a network; `rate` None takes each dropout module's own.

    Raises:
        ValueError: see `ApproximateDropout`.
    """
    tiles = isinstance(pattern, Tiles)
    wiring = Wiring(dict(network.named_modules()), defaultdict(list), {}, {}, {})
    for call in places.find(network):
        if call.width == 0 or (tiles and not call.readers):
            wiring.visits[call.name].append(None)
            continue
        place = Place(call.name, call.width, call.rate if rate is None else rate)
        wiring.readers.update(dict.fromkeys(call.readers, place))
        part = False
        if call.giver is not None and not tiles:
            wiring.givers[call.giver] = place
            part = recurrent or not isinstance(wiring.modules[call.giver], nn.LSTM)
        wiring.visits[call.name].append(Visit(place, part, bool(call.readers)))
    for name, module in wiring.modules.items():
        if (own := places.inner_rate(module)) > 0:
            inner = range(module.num_layers - 1)
            wiring.inner[name] = [Place(name, module.hidden_size, own if rate is None else rate) for _ in inner]
    if not wiring.places:
        raise ValueError(f"{type(network).__name__} has no linear layer or LSTM behind its dropout to tile")
    for place in wiring.places:
        _check_width(place, pattern)
    return wiring


def _check_width(place: Place, pattern: Pattern) -> None:
    pieces, width, what = pattern.largest(place.rate), place.width, "units"
    if isinstance(pattern, Tiles):
        width, what = math.ceil(width / pattern.size), "tiles"
    if pieces > width:
        raise ValueError(
            f"dropout '{place.name}' has {width} {what} in a row, fewer than the {pieces} pieces that "
            f"{type(pattern).__name__} may ask for at rate {place.rate}"
        )


def exchange(network: nn.Module, wiring: Wiring, iteration: Iteration, *, recurrent: bool) -> dict[str, nn.Module]:
    """Puts the layers in; returns the network's own ones by name."""
    made: dict[nn.Module, nn.Module] = {}
    for name in {*wiring.givers, *wiring.readers, *wiring.inner}:
        module, reads, gives = wiring.modules[name], wiring.readers.get(name), wiring.givers.get(name)
        if isinstance(module, nn.LSTM):
            made[module] = CutLSTM(module, iteration, reads, wiring.inner.get(name, []), gives, recurrent=recurrent)
        elif isinstance(module, nn.Embedding):
            made[module] = CutEmbedding(module, iteration, wiring.givers[name])
        elif isinstance(iteration.pattern, Tiles):
            made[module] = TiledLinear(module, iteration, wiring.readers[name])
        else:
            made[module] = CutLinear(module, iteration, reads, gives)
    for name, visits in wiring.visits.items():
        made[wiring.modules[name]] = Site(iteration, visits, wiring.modules[name].p)
    own = {name: module for name, module in network.named_modules(remove_duplicate=False) if module in made}
    for name, module in own.items():
        network.set_submodule(name, made[module].train(module.training))
    return own


def shared_parameters(network: nn.Module) -> set:
    """Parameters that several layers hold."""
    owners = Counter(parameter for module in network.modules() for parameter in module.parameters(recurse=False))
    return {parameter for parameter, count in owners.items() if count > 1}
