"""Layers are put in the place of others, and what they add to the loss is summed."""

import pytest
import torch
from torch import Tensor, nn

import dropouts


class Priced(nn.Module):
    """A layer whose penalty is the square of its one parameter."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def penalty(self) -> Tensor:
        return self.value**2


def mlp() -> nn.Sequential:
    hidden = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Dropout(0.4))
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), hidden, nn.Linear(4, 2))


def test_every_site_is_replaced_and_nothing_else():
    network = mlp()
    before = dict(network.named_parameters())
    assert dropouts.replace(network, lambda site: dropouts.Bernoulli(site.p)) is network
    assert [module.rate for module in network.modules() if isinstance(module, dropouts.Bernoulli)] == [0.2, 0.4]
    assert not any(isinstance(module, nn.Dropout) for module in network.modules())
    assert dict(network.named_parameters()) == before


def test_a_site_in_two_places_is_made_once_and_the_mode_stays():
    site = nn.Dropout(0.3)
    network = nn.Sequential(nn.Linear(2, 2), site, nn.Linear(2, 2), site).eval()
    dropouts.replace(network, lambda old: dropouts.Bernoulli(old.p))
    assert network[1] is network[3] and not network[1].training


def test_a_network_that_is_the_site_itself_is_replaced_whole():
    assert isinstance(dropouts.replace(nn.Dropout(0.1), lambda old: dropouts.Bernoulli(old.p)), dropouts.Bernoulli)


def test_other_kinds_can_be_replaced_and_what_make_returns_unchanged_stays():
    network = mlp()
    last = network[3]
    dropouts.replace(network, lambda old: old if old is last else Priced(1.0), kind=nn.Linear)
    assert network[3] is last and isinstance(network[0], Priced) and isinstance(network[2][0], Priced)


def test_a_new_layer_moves_to_the_device_of_the_network():
    network = dropouts.replace(mlp().to("meta"), lambda old: Priced(1.0))
    assert network[1].value.device.type == "meta"


def test_a_network_without_a_place_is_refused_by_name():
    with pytest.raises(ValueError, match="Linear has no Dropout"):
        dropouts.replace(nn.Linear(2, 2), lambda old: old)
    with pytest.raises(ValueError, match="ReLU has no Linear or Conv2d"):
        dropouts.replace(nn.ReLU(), lambda old: old, kind=(nn.Linear, nn.Conv2d))


def test_a_layer_is_put_before_every_reader_of_hidden_units():
    network = mlp()
    first, last = network[0], network[3]
    dropouts.put_before(network, lambda reader: dropouts.Bernoulli(reader.in_features / 10))
    assert network[0] is first and network[3].reader is last and network[2][0].dropout.rate == 0.4
    assert network(torch.randn(2, 3)).shape == (2, 2)


def test_inputs_of_a_linear_layer_are_units_like_others_if_wanted_and_images_are_not():
    network = dropouts.put_before(mlp(), lambda reader: dropouts.Gaussian(), inputs=True)
    assert isinstance(network[0], dropouts.Before)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3))
    dropouts.put_before(network, lambda reader: dropouts.Gaussian(), nn.Conv2d, inputs=True)
    assert [type(module) for module in network] == [nn.Conv2d, dropouts.Before]


def test_a_convolution_that_reads_the_image_lets_every_linear_layer_have_one():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 4), nn.Linear(4, 2))
    dropouts.put_before(network, lambda reader: dropouts.DropBlock(), nn.Conv2d)
    dropouts.put_before(network, lambda reader: dropouts.Gaussian())
    assert [type(module) for module in network] == [nn.Conv2d, dropouts.Before, nn.Flatten] + 2 * [dropouts.Before]


def test_a_network_that_reads_no_hidden_units_is_refused():
    with pytest.raises(ValueError, match="Sequential has no Linear or RNNBase that reads hidden units"):
        dropouts.put_before(nn.Sequential(nn.Linear(3, 2)), lambda reader: dropouts.Gaussian())


def test_own_dropout_can_be_switched_off():
    network = nn.Sequential(nn.Dropout(0.3), nn.Dropout2d(0.4), nn.Linear(2, 2))
    assert dropouts.switch_off(network) is network
    assert network[0].p == network[1].p == 0


def test_penalties_of_all_layers_are_summed_with_their_gradient():
    network = nn.Sequential(Priced(2.0), nn.Sequential(Priced(3.0), nn.Linear(2, 2)))
    total = dropouts.penalty(network)
    assert total.item() == 13.0
    total.backward()
    assert float(network[1][0].value.grad) == 6.0
    assert dropouts.penalty(network[0]).item() == 4.0


def test_a_network_without_penalties_pays_nothing():
    assert float(dropouts.penalty(mlp())) == 0.0


def test_a_layer_that_two_parts_of_a_network_share_has_one_penalty_and_answers_for_what_is_inside():
    shared = Priced(2.0)
    assert dropouts.penalty(nn.Sequential(nn.Sequential(shared), nn.Sequential(shared))).item() == 4.0
    shared.inside = Priced(5.0)
    assert dropouts.penalty(nn.Sequential(shared)).item() == 4.0
