"""What is left of each layer of a small network, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edropout.subnetworks.compact import CompactRunner
from edropout.subnetworks.layout import Structure
from edropout.subnetworks.observe import follow
from edropout.subnetworks.part import parts


@pytest.mark.parametrize("between", [[], [nn.Dropout()], [nn.Dropout(), nn.ReLU()]], ids=len)
def test_columns_of_a_flattened_channel_move_as_one_block(between: list[nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Flatten(), *between, nn.Linear(12, 2))
    graph, modules = follow(model, torch.zeros(1, 1, 2, 2))
    plan = Structure(graph, modules).plan({"0": torch.tensor([True, False, True])})
    head = str(2 + len(between))
    cut = plan.cuts[head]
    assert cut.block == 4
    assert cut.columns.tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    part = parts(modules, plan)[model[-1].weight]
    assert (part.entries, part.numbers.tolist()) == (6, [0, 2, 3, 5])  # channels 0 and 2 of both rows
    assert part.shape == (2, 8)


class TwoBranches(nn.Module):
    """A sum of two layers of four channels, read by a convolution with a kernel of the given side."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.last = nn.Conv2d(4, 3, side, padding=side // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.one(x) + self.two(x))).mean((2, 3))


@pytest.mark.parametrize(
    ("side", "second", "held"),
    [
        (1, [False, True, True, False], None),  # three of four channels are left: filled up with zeros
        (1, [True, True, False, False], [0, 1]),  # two of four: moving them costs less
        (3, [False, True, True, False], [0, 1, 2]),  # a larger kernel is not given more to multiply
    ],
)
def test_a_plan_to_run_by_fills_sums_for_convolutions_of_one_pixel(side: int, second: list, held: list | None) -> None:
    torch.manual_seed(0)
    model, x = TwoBranches(side).eval(), torch.randn(2, 2, 5, 5)
    graph, modules = follow(model, x)
    structure = Structure(graph, modules)
    kept = {"one": torch.tensor([True, True, False, False]), "two": torch.tensor(second)}
    exact, filled = structure.plan(kept), structure.plan(kept, filled=True)
    left = [0, 1, 2] if second[2] else [0, 1]
    assert exact.cuts["last"].columns.tolist() == left
    columns = filled.cuts["last"].columns
    assert columns is None if held is None else columns.tolist() == held
    runner = CompactRunner(model, modules, structure, candidate=True)
    with torch.no_grad():
        one, two = (runner.run(graph.steps, {graph.steps[0].name: x}, plan) for plan in (exact, filled))
    torch.testing.assert_close(one, two)
