"""Approximate random dropout of a whole network: its layers compute, and its optimiser moves, only what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dropouts.approximate.iteration import Iteration, Place
from dropouts.approximate.patterns import Blocks, Pattern, Tiles
from dropouts.approximate.permutation import permute_places_
from dropouts.approximate.step import full_step, lazy_step
from dropouts.approximate.wiring import exchange, shared_parameters, wire
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
        self._wiring = wire(network, rate, pattern, recurrent=recurrent)
        self.iteration = Iteration(pattern, shared, generator, accumulate, shared_parameters(network))
        self._own = exchange(network, self._wiring, self.iteration, recurrent=recurrent)

    def parameters(self) -> Iterator[torch.Tensor]:
        """What holds this iteration's gradients, to clip them: parts of parameters, and whole ones."""
        for parameter in self.network.parameters():
            leaf = self.iteration.leaves.get(parameter)
            if leaf is not None:
                yield leaf.value
            if leaf is None or parameter.grad is not None:
                yield parameter

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

        The state of an LSTM that goes on from one sequence to the next would not follow: start anew behind it.

        Args:
            optimizers: Those that hold the parameters; their state moves too.
        """
        if isinstance(self.pattern, Blocks) and self.pattern.permuted:
            self.discard()
            permute_places_(self._wiring.moves(), self.iteration.whole, optimizers, self.iteration.generator)

    def remove(self) -> nn.Module:
        """The network with its own layers again, which hold what was trained."""
        for name, module in self._own.items():
            self.network.set_submodule(name, module.train(self.network.get_submodule(name).training))
        self._own = {}
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
        return self._wiring.places
