"""The pruning state vector is a partition of the units of a network."""

from __future__ import annotations

import pytest
import torch
import torchvision
from searched_networks import ARCHITECTURES, build, small_network
from torch import nn

from edropout.subnetworks.units import Units

# Salehinejad & Valaee, arXiv:2006.04270: state sizes printed by the authors' code.
PUBLISHED = {"resnet18": 6208, "resnet34": 9920, "resnet50": 32448, "resnet101": 58560}
WITHOUT_SHORTCUT_NORMS = {"resnet18": 5312, "resnet34": 9024, "resnet50": 28608, "resnet101": 54720}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_state_sizes_count_stem_and_shortcut_norms(name: str) -> None:
    model = torchvision.models.get_model(name)
    assert Units(model, prune_stem=True, shortcut_norms=True).num_units == PUBLISHED[name]
    assert Units(model, prune_stem=True).num_units == WITHOUT_SHORTCUT_NORMS[name]
    assert Units(model).num_units == WITHOUT_SHORTCUT_NORMS[name] - 64


def test_alexnet_and_squeezenet_sizes_are_the_published_ones_without_outputs() -> None:
    alexnet = torchvision.models.alexnet(num_classes=102)
    assert Units(alexnet, prune_stem=True, hidden_linear=True).num_units == 18662 - 102
    squeezenet = torchvision.models.squeezenet1_1(num_classes=102)
    # 512 inputs of the output convolution are the filters before it, counted once here.
    assert Units(squeezenet, prune_stem=True).num_units == 3558 - 102 - 512


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_split_and_join_are_inverse(name: str) -> None:
    units = Units(build(name), hidden_linear=True)
    state = torch.rand(units.num_units) < 0.5
    assert torch.equal(units.join(units.split(state)), state)
    assert sum(len(part) for part in units.split(state).values()) == units.num_units


def test_a_missing_layer_keeps_all() -> None:
    units = Units(small_network())
    assert units.join({"2": torch.zeros(6, dtype=torch.bool)}).tolist() == [False] * 6 + [True] * 16


def test_stem_output_and_hidden_layers_are_options() -> None:
    model = small_network()
    assert Units(model).sizes == {"2": 6, "6": 6, "11": 10}
    assert Units(model, prune_stem=True, hidden_linear=True).sizes == {"0": 4, "2": 6, "6": 6, "9": 96, "11": 10}


def test_repair_leaves_no_layer_empty_and_the_rest_alone() -> None:
    units = Units(small_network())
    states = torch.zeros(3, units.num_units, dtype=torch.bool)
    states[1, 2] = True
    units.repair_(states)
    assert states[1].nonzero().squeeze(1).tolist() == [2, 6, 12]


@pytest.mark.parametrize(("count", "left"), [(1, 4), (3, 4), (5, 4), (6, 8), (9, 8), (10, 11), (11, 11)])
def test_repair_goes_to_the_nearest_multiple_or_to_all(count: int, left: int) -> None:
    units = Units(small_network(11), multiple_of=4)
    assert units.sizes == {"2": 11, "6": 11}  # the inputs of the last layer follow
    states = torch.zeros(40, 22, dtype=torch.bool)
    for state in states:
        state[:11][torch.randperm(11)[:count]] = True
        state[11:] = state[:11]
    before, worth = states.clone(), torch.arange(22) % 11
    for repaired in (units.repair_(states.clone()), units.repair_(states.clone(), worth)):
        assert (repaired[:, :11].sum(1) == left).all() and (repaired[:, 11:].sum(1) == left).all()
        same = repaired & before if left < count else repaired | before
        assert torch.equal(same, repaired)  # units go or come back, not both
    changed = repaired ^ before
    if left < count:  # the worst of those that are kept
        assert all(numbers[change].max() < numbers[stays].min() for numbers, change, stays in zip(
            worth.expand(40, 22), changed, repaired, strict=True))  # fmt: skip
    elif left > count and left < 11:
        assert all(numbers[change].min() > numbers[~stays].max() for numbers, change, stays in zip(
            worth.expand(40, 22), changed, repaired, strict=True))  # fmt: skip


def test_a_network_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="no unit that can be pruned"):
        Units(nn.Sequential(nn.Flatten(), nn.ReLU()))


def test_a_state_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must have 22 units"):
        Units(small_network()).split(torch.ones(21, dtype=torch.bool))


def test_a_network_that_cannot_be_followed_is_refused_with_a_sentence() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(ValueError, match=r"nothing in Branching can be pruned, as torch.fx cannot follow it"):
        Units(Branching())


def test_auxiliary_heads_of_training_are_no_units() -> None:
    sizes = Units(torchvision.models.googlenet(aux_logits=True, init_weights=False)).sizes
    assert "fc" in sizes and not any(layer.startswith("aux") for layer in sizes)


def test_a_network_of_linear_layers_says_which_units_it_has() -> None:
    mlp = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    with pytest.warns(UserWarning, match="its units are the 6 inputs of its last linear layer alone"):
        assert Units(mlp).num_units == 6
    assert Units(mlp, hidden_linear=True).num_units == 10


def test_optional_arguments_of_forward_are_left_at_none() -> None:
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
            return self.layer(x if mask is None else x * mask)

    assert Units(Optional()).sizes == {"layer": 4}


class ConvolutionalHead(nn.Module):
    """Normalises its input by hand, adds two heads, and ends with a norm and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3)
        self.one, self.other, self.norm = nn.Conv2d(6, 5, 1), nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5)
        self.register_buffer("mean", torch.rand(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.first((x - self.mean.view(1, 3, 1, 1)) / 2))
        return self.norm(self.one(x) + self.other(x)).mean((2, 3)).view(x.size(0), -1)


def test_stem_and_output_layers_are_known_by_the_weights_in_between() -> None:
    assert Units(ConvolutionalHead()).sizes == {"middle": 6}
    assert Units(ConvolutionalHead(), prune_stem=True).sizes == {"first": 4, "middle": 6}


@pytest.mark.parametrize("options", [{"multiple_of": 0}, {"multiple_of": 4, "shortcut_norms": True}])
def test_multiples_that_no_layer_can_keep_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="multiple_of must be at least 1, and 1 with shortcut_norms"):
        Units(small_network(11), **options)
