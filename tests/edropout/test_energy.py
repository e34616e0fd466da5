"""Energy loss: the most offending answer."""

from __future__ import annotations

import torch

from edropout.energy import energy


def test_energy_is_the_mean_margin_of_the_strongest_rival() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0], [0.0, 0.0, 5.0]])
    # rival 2 over target 3 is -1; rival 5 over target 0 is 5; their mean is 2
    assert energy(logits, torch.tensor([1, 0])) == 2.0


def test_a_constant_added_to_the_logits_of_a_sample_changes_nothing() -> None:
    logits, target = torch.randn(6, 4, dtype=torch.float64), torch.arange(6) % 4
    shifted = logits + torch.randn(6, 1, dtype=torch.float64)
    assert torch.allclose(energy(logits, target), energy(shifted, target), atol=1e-12)


def test_leading_axes_are_separate_energies() -> None:
    logits, target = torch.randn(3, 6, 4), torch.arange(6) % 4
    assert torch.equal(energy(logits, target), torch.stack([energy(one, target) for one in logits]))
