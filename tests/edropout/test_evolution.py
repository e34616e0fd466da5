"""Binary differential evolution."""

from __future__ import annotations

import pytest
import torch

from edropout.evolution import cross, diversity, initial_population, mutate, mutate_as_released, select


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_equal_states_have_equal_mutants() -> None:
    population = (torch.rand(1, 500) < 0.5).repeat(6, 1)
    assert torch.equal(mutate(population, 0.9, generator()), population)


def test_released_operator_never_rests() -> None:
    population = torch.ones(8, 20_000, dtype=torch.bool)
    changed = (mutate_as_released(population, 0.9, generator()) != population).float().mean()
    assert abs(changed - 0.1) < 0.005  # before crossover at 0.9, which leaves 9 %


def test_released_operator_drops_where_two_states_differ() -> None:
    population = torch.tensor([[True], [True], [False], [False]]).repeat(1, 5000)
    mutants = mutate_as_released(population, 0.0, generator())
    # Three states different from i: one of them is the base, the other two agree (flip) or differ (drop).
    assert mutants.float().mean() < 0.4


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_units_flip_only_where_two_others_differ(factor: float) -> None:
    # States 1 to 3 agree on the first half; a mutant of state 0 comes from them alone.
    population = torch.zeros(4, 40_000, dtype=torch.bool)
    population[1, 20_000:] = True
    mutant = mutate(population, factor, generator())[0]
    assert not mutant[:20_000].any()
    # Either 1 is the base and stays, or it differs from the third and flips the base with probability F.
    assert abs(mutant[20_000:].float().mean() - factor) < 0.02 or mutant[20_000:].all()


def test_crossover_rate_is_the_share_from_the_mutant() -> None:
    zeros = torch.zeros(4, 50_000, dtype=torch.bool)
    assert abs(cross(zeros, ~zeros, 0.9, generator()).float().mean() - 0.9) < 0.01


def test_selection_never_raises_an_energy_and_keeps_ties() -> None:
    population, candidates = torch.zeros(4, 3, dtype=torch.bool), torch.ones(4, 3, dtype=torch.bool)
    states, energies = select(
        population, torch.tensor([1.0, 1.0, 1.0, 1.0]), candidates, torch.tensor([0.5, 1.0, 2.0, -1.0])
    )
    assert states[:, 0].tolist() == [True, False, False, True]
    assert energies.tolist() == [0.5, 1.0, 1.0, -1.0]


def test_kept_ratio_stays_under_energies_that_know_nothing() -> None:
    source = generator(3)
    population = initial_population(8, 2000, 0.5, source)
    energies = torch.rand(8, generator=source)
    for _ in range(30):
        candidates = cross(population, mutate(population, 0.9, source), 0.9, source)
        population, energies = select(population, energies, candidates, torch.rand(8, generator=source))
        energies = torch.rand(8, generator=source)
    assert abs(population.float().mean() - 0.5) < 0.02


def test_diversity_is_the_share_of_disagreeing_pairs() -> None:
    population = torch.tensor([[True, True], [True, False], [True, False], [True, True]])
    # on the second unit 4 of 6 pairs disagree, on the first none
    assert abs(diversity(population) - 4 / 12) < 1e-12
