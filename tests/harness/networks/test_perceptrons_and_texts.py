"""MLPs, LeNets and LSTMs by name: their published sizes, and a place for dropout in front of every reader of units."""

import pytest
import torch
from torch import nn

from dropouts import put_before, readers
from harness import kinds
from harness.measure.metrics import macs, parameters
from harness.networks.build import ModelError, build

LANGUAGE = kinds.named("language")
DIGITS = (1, 28, 28)


def make(name, shape=DIGITS, outputs=10, kind="classification"):
    torch.manual_seed(0)
    return build(name, num_classes=outputs, input_shape=shape, kind=kinds.named(kind))


@pytest.mark.parametrize(
    ("name", "size", "products"),
    [
        ("mlp_800_800", 1_276_810, 1_275_200),
        ("lenet_300_100", 266_610, 266_200),
        ("lenet5", 431_080, 2_293_000),  # 20 * 24^2 * 25 + 50 * 8^2 * 500 + 800 * 500 + 5000
    ],
)
def test_networks_for_mnist_have_their_published_sizes(name, size, products):
    network = make(name)
    assert parameters(network) == size and macs(network, DIGITS) == products


def test_the_small_lstm_of_zaremba_has_its_size_and_a_tied_one_less():
    network = make("lstm_200x2", (35,), 10_000, "language")
    assert parameters(network) == 2 * 10_000 * 200 + 10_000 + 2 * 4 * 200 * (200 + 200 + 2)
    assert all(parameter.abs().max() <= 0.1 for parameter in network.parameters())
    tied = make("lstm_200x2_tied", (35,), 10_000, "language")
    assert parameters(network) - parameters(tied) == 10_000 * 200
    assert macs(tied, (35,), LANGUAGE) == macs(network, (35,), LANGUAGE) == 2_640_000


def test_a_bag_of_words_knows_no_order_and_passes_over_what_fills_up():
    network = make("bag_9_4_3", (5,), 2).eval()
    assert parameters(network) == 9 * 4 + (4 + 1) * 3 + (3 + 1) * 2
    sentence, turned, longer = (
        torch.tensor([[2, 3, 3, 0]]),
        torch.tensor([[3, 2, 3, 0]]),
        torch.tensor([[2, 3, 3, 0, 0]]),
    )
    assert torch.allclose(network(sentence), network(turned)) and torch.equal(network(sentence), network(longer))
    assert not torch.allclose(network(sentence), network(torch.tensor([[2, 2, 3, 0]])))


@pytest.mark.parametrize(
    ("name", "shape", "kind"),
    [("mlp_6_5", (4,), "regression"), ("lenet_300_100", DIGITS, "classification"), ("lenet5", DIGITS, "classification"),
     ("lstm_4x3", (5,), "language")],
)  # fmt: skip
def test_the_places_for_dropout_are_in_front_of_all_that_reads_hidden_units(name, shape, kind):
    kind, outputs = kinds.named(kind), 1 if kind == "regression" else 10
    own, ours = make(name, shape, outputs, kind.name).train(), make(name, shape, outputs, kind.name).train()
    for module in own.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    assert sum(isinstance(module, nn.Dropout) for module in own.modules()) == len(readers(ours))
    put_before(ours, lambda reader: nn.Dropout(0.5))
    x = kind.example(shape, 3) if kind.name == "language" else torch.randn(3, *shape)
    outcomes = []
    for network in (own, ours):
        torch.manual_seed(1)
        outcomes.append(network(x))
    assert torch.equal(*outcomes)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "sentence"),
    [
        ("lstm_8x2", DIGITS, "classification", r"lstm_8x2 cannot be built for images of 1 x 28 x 28"),
        ("resnet18", (10,), "regression", r"resnet18 cannot be built for rows of 10"),
        ("mlp_8", (5,), "language", r"mlp_8 cannot take texts of 5 .*: choose another network"),
        ("lenet5", (1, 8, 8), "classification", r"image_size_by_model.lenet5"),
        ("mlp_0", DIGITS, "classification", r"no architecture is called 'mlp_0'"),
    ],
)
def test_a_network_for_another_kind_is_refused_in_a_sentence(name, shape, kind, sentence):
    with pytest.raises(ModelError, match=sentence):
        make(name, shape, 10, kind)
