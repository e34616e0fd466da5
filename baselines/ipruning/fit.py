"""IPruning: filters as spins of an Ising model, whose energy an evolving population of states lowers."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from baselines.ipruning.ising import feature_maps, interactions
from baselines.ipruning.masked import MaskedNetwork
from harness.machine.distributed import average_
from harness.pruning.layers import NothingToPrune, convolutions
from harness.pruning.structured import check_ratio, example_of, prune_units
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    population_size: Annotated[int, "[4, inf)"] = 8,
    initial_kept: Annotated[float, "[0, 1]"] = 0.5,
    mutation_factor: Annotated[float, "[0, 1]"] = 0.9,
    crossover_rate: Annotated[float, "[0, 1]"] = 0.9,
    minimum_kept: Annotated[float, "[0, 1)"] = 0.1,
    freeze_epoch: Annotated[int, "[1, inf)"] | None = None,
) -> nn.Module:
    """Evolve pruning states by their Ising energy while training (Salehinejad & Valaee, arXiv:2102.05437).

    Defaults are those of the authors' README and code (sparsifai/ipruning). Where the code slips we follow the idea:
    kernels are grouped by filter, states are compared on the same batch, mutation is binary differential evolution,
    and every batch of an epoch is used.

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop.
        population_size: Number of states, at least 4.
        initial_kept: Probability that a unit is kept at the start.
        mutation_factor: Probability to flip a unit on which two other states differ.
        crossover_rate: Probability to take a unit from the mutant.
        minimum_kept: Share of the parameters below which a state pays a penalty.
        freeze_epoch: Epoch after which the best state is final; recipe.prune_epoch by default, half of the budget as
            in the README (100 of 200).

    Returns:
        The physically smaller network of the best state.

    Raises:
        ValueError: a hyper-parameter out of its range, or nothing to prune.
    """
    check_ratio(minimum_kept, "minimum_kept")
    freeze_epoch = task.recipe.prune_epoch if freeze_epoch is None else freeze_epoch
    if population_size < 4:
        raise ValueError(f"population_size must be at least 4 (a state and three others), not {population_size}")
    if not 0 < freeze_epoch <= task.epochs_left:
        raise ValueError(f"freeze_epoch must be from 1 to {task.epochs_left}, not {freeze_epoch}")
    layers = [layer for layer in convolutions(model, example_of(task)) if not layer.output]
    if not layers:
        raise NothingToPrune(f"nothing can be pruned in {type(model).__name__}: it has no hidden convolution")
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1:]
    masked = MaskedNetwork(model, layers, linear)
    sizes = {layer.name: layer.width for layer in layers}
    sizes |= {name: model.get_submodule(name).in_features for name in linear}
    population = Population(
        list(sizes.values()), population_size, initial_kept, mutation_factor, crossover_rate,
        task.generator("population"), task.device,
    )  # fmt: skip

    def kept() -> dict[str, Tensor]:
        return dict(zip(sizes, population.best.split(list(sizes.values())), strict=True))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        if not population.converged:
            maps = feature_maps(model, layers, x)
            average_(maps, examples=len(x))  # all processes of a cell evolve the same states
            ising = interactions(model, layers, linear, maps, task.num_classes)
            population.evolve(lambda states: ising.energy(states, minimum_kept))
        masked.keep(kept())
        return functional.cross_entropy(masked(x), y)

    task.train(
        model,
        epochs=freeze_epoch,
        loss=loss,
        step=masked.step,
        state={"population": population},
        evaluated=lambda: masked,
        columns=lambda: {"kept_units": float(population.best.float().mean())},
    )
    smaller = prune_units(model, {name: units.cpu() for name, units in kept().items()}, example_of(task))
    return task.train(smaller)


class Population:
    """States under binary differential evolution, none of which leaves a layer without units.

    Args:
        sizes: Units of each layer.
        count: Number of states.
        initial_kept: Probability that a unit is kept at the start.
        mutation_factor: F.
        crossover_rate: C.
        generator: On the CPU.
        device: Of the states.
    """

    def __init__(
        self,
        sizes: list[int],
        count: int,
        initial_kept: float,
        mutation_factor: float,
        crossover_rate: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self.sizes, self.generator, self.device = sizes, generator, device
        self.mutation_factor, self.crossover_rate = mutation_factor, crossover_rate
        self.states = self._repaired(self._uniform(count, sum(sizes)) < initial_kept)
        self.best = self.states[0]

    @property
    def converged(self) -> bool:
        """True when all states are equal: mutation then finds nothing new."""
        return bool((self.states == self.states[0]).all())

    def evolve(self, energy: Any) -> None:
        """One generation: mutation, crossover, selection; `energy` maps (states, units) bool to (states,)."""
        count, units = self.states.shape
        others = self._uniform(count, count).fill_diagonal_(2).argsort(1)
        base, one, other = (self.states[others[:, number]] for number in range(3))
        mutants = base ^ ((one ^ other) & (self._uniform(count, units) < self.mutation_factor))
        crossed = torch.where(self._uniform(count, units) <= self.crossover_rate, mutants, self.states)
        candidates = self._repaired(crossed)
        old, new = energy(self.states), energy(candidates)
        self.states = torch.where((new < old)[:, None], candidates, self.states)
        self.best = self.states[torch.minimum(old, new).argmin()]

    def state_dict(self) -> dict[str, Tensor]:
        return {"states": self.states, "best": self.best, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.states, self.best = state["states"].to(self.device), state["best"].to(self.device)
        self.generator.set_state(state["generator"])

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator).to(self.device)

    def _repaired(self, states: Tensor) -> Tensor:
        for layer in states.split(self.sizes, dim=1):
            layer[:, 0] |= ~layer.any(1)
        return states
