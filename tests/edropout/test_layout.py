"""What is left of each layer of a small network, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edropout.kept_step import kept_numbers
from edropout.layout import Structure
from edropout.observe import follow


@pytest.mark.parametrize("between", [[], [nn.Dropout()], [nn.Dropout(), nn.ReLU()]], ids=len)
def test_columns_of_a_flattened_channel_move_as_one_block(between: list[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), *between, nn.Linear(12, 2))
    graph, modules = follow(model, torch.zeros(1, 1, 2, 2))
    plan = Structure(graph, modules).plan({"0": torch.tensor([True, False, True])})
    head = str(2 + len(between))
    cut = plan.cuts[head]
    assert cut.block == 4
    assert cut.columns.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    entries, numbers = kept_numbers(modules, plan)[model[-1].weight]
    assert (entries, numbers.tolist()) == (6, [0, 2, 3, 5])  # channels 0 and 2 of both rows
