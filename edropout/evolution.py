"""Binary differential evolution on a population of pruning states: mutation, crossover, selection."""

from __future__ import annotations

import torch
from torch import Tensor


def initial_population(
    population_size: int, num_units: int, kept_probability: float, generator: torch.Generator
) -> Tensor:
    """Draws (population_size, num_units) bool with independent Bernoulli(kept_probability) entries."""
    return _uniform((population_size, num_units), generator) < kept_probability


def mutate(population: Tensor, mutation_factor: float, generator: torch.Generator) -> Tensor:
    """Makes one mutant per state from three other states a, b, c: a with units flipped where b and c differ.

    A unit on which b and c differ is flipped with probability `mutation_factor` (binary differential evolution as in
    Salehinejad & Valaee, arXiv:2006.04270). A population of equal states only has equal mutants.

    Args:
        population: (population_size, num_units) bool, at least four states.
        mutation_factor: F in [0, 1]; the paper's code uses 0.9.
        generator: Source of randomness, on the device of `population`.
    """
    base, one, other = _three_others(population, generator)
    return base ^ ((one ^ other) & (_uniform(population.shape, generator) < mutation_factor))


def mutate_as_released(population: Tensor, mutation_factor: float, generator: torch.Generator) -> Tensor:
    """The operator of the authors' released code, for ablation; it differs from binary differential evolution.

    A unit is touched with probability 1 - `mutation_factor`: it is flipped where b and c agree and dropped where they
    differ, so a converged population never rests (9 % of its units change at 0.9) and dropping is favoured.
    """
    base, one, other = _three_others(population, generator)
    touched = _uniform(population.shape, generator) > mutation_factor
    return torch.where(touched, ~base & ~(one ^ other), base)


def cross(population: Tensor, mutants: Tensor, crossover_rate: float, generator: torch.Generator) -> Tensor:
    """Takes each unit from the mutant with probability `crossover_rate` (0.9 in the paper's code), else its state."""
    return torch.where(_uniform(population.shape, generator) <= crossover_rate, mutants, population)


def select(
    population: Tensor, energies: Tensor, candidates: Tensor, candidate_energies: Tensor
) -> tuple[Tensor, Tensor]:
    """Replaces each state by its candidate where that has a strictly lower energy; a tie keeps the state."""
    better = candidate_energies < energies
    return torch.where(better[:, None], candidates, population), torch.where(better, candidate_energies, energies)


def diversity(population: Tensor) -> float:
    """Mean share of units on which two different states disagree: 0 converged, 0.5 independent fair coins."""
    size = len(population)
    ones = population.sum(0, dtype=torch.float64)
    return float((2 * ones * (size - ones) / (size * (size - 1))).mean())


def _three_others(population: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Three distinct states for every state, none of them itself: each (population_size, num_units)."""
    size = len(population)
    ranks = _uniform((size, size), generator).fill_diagonal_(2.0).argsort(1)
    return population[ranks[:, 0]], population[ranks[:, 1]], population[ranks[:, 2]]


def _uniform(shape: tuple[int, ...] | torch.Size, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
