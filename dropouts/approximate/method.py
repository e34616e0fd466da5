"""Approximate random dropout of a whole network: its layers compute, and its optimiser moves, only what is kept."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dropouts.approximate import places
from dropouts.approximate.iteration import Iteration, Place
from dropouts.approximate.layers import CutEmbedding, CutLinear, Site, TiledLinear, Visit
from dropouts.approximate.lstm import CutLSTM
from dropouts.approximate.patterns import Blocks, Pattern, Tiles
from dropouts.approximate.permutation import Move, given, given_by_lstm, permute_places_, read
from dropouts.approximate.step import full_step, lazy_step
from dropouts.checks import check_rate


class ApproximateDropout:
    """Puts regular patterns in the place of a network's dropout (Song et al., DATE 2019, arXiv:1805.08939).

    Layers next to an nn.Dropout are exchanged for ones that hold the same parameters under the same names and, while
    training, compute only with the units (or weights) that the iteration's pattern keeps. In evaluation mode nothing
    differs from the plain network.

    Args:
        network: Changed in place. Dropout away from linear layers, embeddings and LSTMs stays as it is.
        rate: Drop rate; None takes each dropout module's own.
        pattern: What is kept together.
        shared: One choice for all places of an iteration instead of one for each.
        recurrent: LSTM units that are dropped are dropped from the recurrence too; they sleep for the sequence.
        accumulate: Several batches may add up their gradients, under one pattern, before a step.
        generator: Source of the choices, on the CPU; torch's own if there is none.

    Raises:
        ValueError: a rate outside [0, 1); a pattern with more pieces than there are units; no place to drop at; a
            network that torch.fx cannot follow; tiles with `recurrent`.
    """

    def __init__(
        self,
        network: nn.Module,
        rate: float | None = None,
        *,
        pattern: Pattern = Blocks(),  # noqa: B008
        shared: bool = False,
        recurrent: bool = False,
        accumulate: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if rate is not None:
            check_rate(rate)
        if recurrent and isinstance(pattern, Tiles):
            raise ValueError("tiles act on what a layer reads: recurrent=True needs a pattern of units, such as Blocks")
        self.network, self.pattern, self.recurrent = network, pattern, recurrent
        self.iteration = Iteration(pattern, shared, generator, accumulate)
        self._plain = dict(network.named_modules())
        self._find_places(rate)
        self._check_widths()
        self._replaced = self._exchange_layers()

    def parameters(self) -> Iterator[torch.Tensor]:
        """What holds this iteration's gradients, to clip them: parts of parameters, and whole ones."""
        for parameter in self.network.parameters():
            leaf = self.iteration.leaves.get(parameter)
            yield parameter if leaf is None else leaf.value

    def step(self, optimizer: Optimizer, *, lazy: bool = True) -> None:
        """One step of the optimiser, in the place of `optimizer.step()`; the next pass has new patterns.

        Args:
            lazy: What was dropped does not move, and its momentum and other state stay. Otherwise this is the
                optimiser's ordinary step with zeros as the gradients of what was dropped, which costs a pass over
                all parameters.

        Raises:
            ValueError: the optimiser cannot step on parts, and the step is lazy.
        """
        (lazy_step if lazy else full_step)(optimizer, self.iteration.leaves)
        self.discard()

    def discard(self) -> None:
        """Ends the iteration without a step: its gradients are gone, the next pass has new patterns."""
        self.iteration.renew()

    def end_epoch(self, *optimizers: Optimizer) -> None:
        """Lets the units of each layer change places, if the pattern says so; the network's function stays the same.

        Args:
            optimizers: Those that hold the parameters; their state moves too.
        """
        if isinstance(self.pattern, Blocks) and self.pattern.permuted:
            permute_places_(self._moves(), self.iteration.whole, optimizers, self.iteration.generator)

    def remove(self) -> nn.Module:
        """The network with its own layers again, which hold what was trained."""
        for name, module in self._replaced.items():
            self.network.set_submodule(name, module.train(self.network.get_submodule(name).training))
        self._replaced = {}
        return self.network

    def state_dict(self) -> dict[str, Any]:
        """What a resumed training needs between two steps, besides the network, the optimiser and torch's generator."""
        generator = self.iteration.generator
        return {} if generator is None else {"generator": generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was taken."""
        self.discard()
        if self.iteration.generator is not None:
            self.iteration.generator.set_state(state["generator"])

    @property
    def places(self) -> list[Place]:
        """Where units are dropped."""
        visits = [visit for of_site in self._visits.values() for visit in of_site if visit is not None]
        return [visit.place for visit in visits] + [place for of_lstm in self._inner.values() for place in of_lstm]

    def _find_places(self, rate: float | None) -> None:
        """Who gives and who reads the units of each place."""
        self._visits: dict[str, list[Visit | None]] = defaultdict(list)
        self._inner: dict[str, list[Place]] = {}
        self._givers: dict[str, Place] = {}
        self._readers: dict[str, Place] = {}
        tiles = isinstance(self.pattern, Tiles)
        for call in places.find(self.network):
            if call.width == 0 or (tiles and not call.readers):
                self._visits[call.name].append(None)
                continue
            place = Place(call.name, call.width, call.rate if rate is None else rate)
            giver = self._plain.get(call.giver)
            part = isinstance(giver, nn.Linear | nn.Embedding) or (isinstance(giver, nn.LSTM) and self.recurrent)
            self._visits[call.name].append(Visit(place, part, bool(call.readers)))
            self._readers |= dict.fromkeys(call.readers, place)
            if giver is not None and not tiles:
                self._givers[call.giver] = place
        for name, module in self._plain.items():
            if (own := places.inner_rate(module)) > 0:
                inner_rate = own if rate is None else rate
                self._inner[name] = [Place(name, module.hidden_size, inner_rate) for _ in range(module.num_layers - 1)]
        if not self.places:
            raise ValueError(f"{type(self.network).__name__} has no linear layer or LSTM behind its dropout to tile")

    def _moves(self) -> dict[Place, list[Move]]:
        """The parameters that follow the order of the units of each place; places with one side only have none."""
        moves = {}
        for name, place in self._givers.items():
            readers = [reader for reader, of in self._readers.items() if of is place]
            if readers:
                moves[place] = [*given(self._plain[name]), *(move for r in readers for move in read(self._plain[r]))]
        for name, inner in self._inner.items():
            for number, place in enumerate(inner):
                lstm = self._plain[name]
                moves[place] = [*given_by_lstm(lstm, number), *read(lstm, number + 1)]
        return moves

    def _check_widths(self) -> None:
        for place in self.places:
            pieces, width = self.pattern.largest(place.rate), place.width
            if isinstance(self.pattern, Tiles):
                width = math.ceil(width / self.pattern.size)
            if pieces > width:
                what = "tiles" if isinstance(self.pattern, Tiles) else "units"
                raise ValueError(
                    f"dropout '{place.name}' has {width} {what} in a row, fewer than the {pieces} pieces that "
                    f"{type(self.pattern).__name__} may ask for at rate {place.rate}"
                )

    def _exchange_layers(self) -> dict[str, nn.Module]:
        """Puts the layers in; the network's own ones by name."""
        iteration, tiles = self.iteration, isinstance(self.pattern, Tiles)
        owners = Counter(p for module in self._plain.values() for p in module.parameters(recurse=False))
        iteration.whole = {parameter for parameter, count in owners.items() if count > 1}
        made: dict[str, nn.Module] = {}
        for name in {*self._givers, *self._readers, *self._inner}:
            module, reads, gives = self._plain[name], self._readers.get(name), self._givers.get(name)
            if isinstance(module, nn.LSTM):
                inner = self._inner.get(name, [])
                made[name] = CutLSTM(module, iteration, reads, inner, gives, recurrent=self.recurrent)
            elif isinstance(module, nn.Embedding):
                made[name] = CutEmbedding(module, iteration, gives)
            else:
                made[name] = (
                    TiledLinear(module, iteration, reads) if tiles else CutLinear(module, iteration, reads, gives)
                )
        for name, visits in self._visits.items():
            made[name] = nn.Identity() if tiles and None not in visits else Site(iteration, visits, self._plain[name].p)
        replaced = {}
        for name, module in self.network.named_modules(remove_duplicate=False):
            first = next((known for known in made if self._plain[known] is module), None)
            if first is not None:
                replaced[name] = module
                made[first].train(module.training)
        for name, module in replaced.items():
            self.network.set_submodule(name, made[next(known for known in made if self._plain[known] is module)])
        return replaced
