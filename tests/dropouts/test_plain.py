"""The way back: a network without the family's layers computes what the evaluated one did."""

import pytest
import torch
from torch import nn

import dropouts


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(96, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


LAYERS = (nn.Linear, nn.Conv2d)


def units_of(layer):
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


MAKERS = {
    "sparse_variational": dropouts.SparseVariational,
    "variational_bayesian_weights": dropouts.VariationalBayesianWeights,
    "variational_weights": dropouts.VariationalWeights,
    "concrete": dropouts.Concrete,
    "information": dropouts.Information,
    "dropconnect": lambda layer: dropouts.DropConnect(layer, inference=dropouts.mean_weights),
    "gaussian": lambda layer: dropouts.Before(dropouts.Gaussian(), layer),
    "variational_bayesian": lambda layer: dropouts.Before(dropouts.VariationalBayesian(units_of(layer)), layer),
    "beta_bernoulli": lambda layer: dropouts.Before(dropouts.BetaBernoulli(units_of(layer)), layer),
    "scheduled": lambda layer: dropouts.Scheduled(dropouts.Concrete(layer), dropouts.late()),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_a_plain_network_computes_the_same_and_has_the_architecture_of_before(make):
    network = lenet()
    names = list(network.state_dict())
    dropouts.replace(network, make, kind=LAYERS).eval()
    x = torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "log_variance" in name:
                parameter.uniform_(-12, 2)  # some are pruned
            if "raw_a" in name:
                parameter.uniform_(-12, 2)
        before = network(x)
        assert dropouts.plain(network) is network
        torch.testing.assert_close(network(x), before, atol=1e-6, rtol=1e-5)
    assert list(network.state_dict()) == names


@pytest.mark.parametrize("layer", [nn.Linear(6, 4), nn.Conv2d(6, 4, 3, groups=2)], ids=["linear", "convolution"])
def test_what_reads_a_pruned_unit_is_zero(layer):
    gates = dropouts.VariationalBayesian(6).eval()
    with torch.no_grad():
        gates.log_variance[[1, 5]] = 3.0
    x = torch.randn((3, 6) if isinstance(layer, nn.Linear) else (3, 6, 5, 5))
    plain = dropouts.Before(gates, layer).plain()
    torch.testing.assert_close(plain(x), layer(gates(x)))
    x[:, [1, 5]] += 100  # what is zero cannot see it
    torch.testing.assert_close(plain(x), layer(gates(x)))
    assert int((plain.weight == 0).sum()) == 2 * plain.weight.numel() // 6


def test_what_evaluation_needs_stays():
    dependent = dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(4))
    with torch.no_grad():
        dependent.independent.raw_a[0] = -20.0
    network = nn.Sequential(
        nn.Linear(3, 4),
        dropouts.Before(dropouts.Standout(), nn.Linear(4, 4)),
        dropouts.Before(dependent, nn.Linear(4, 4)),
        nn.ReLU(),
        dropouts.DropConnect(nn.Linear(4, 2)),
    ).eval()
    x = torch.randn(5, 3)
    with torch.no_grad():
        before = network(x)
        dropouts.plain(network)
        torch.testing.assert_close(network(x), before)
    assert isinstance(network[1].dropout, dropouts.Standout) and isinstance(network[4], dropouts.DropConnect)
    assert (network[2].reader.weight[:, 0] == 0).all() and (network[2].reader.weight[:, 1:] != 0).all()


def test_a_layer_in_two_places_stays_one_and_the_mode_stays():
    shared = dropouts.SparseVariational(nn.Linear(3, 3))
    network = nn.Sequential(shared, nn.ReLU(), shared)
    dropouts.plain(network)
    assert network[0] is network[2] and type(network[0]) is nn.Linear and network[0].training


def test_a_network_that_is_one_layer_comes_back_plain():
    assert type(dropouts.plain(dropouts.SparseVariational(nn.Linear(3, 3)))) is nn.Linear


def test_another_number_of_units_cannot_be_folded():
    with pytest.raises(ValueError, match="dropout of 5 units cannot be folded"):
        dropouts.VariationalBayesian(5).fold(nn.Linear(6, 2))


def test_the_lines_that_the_page_adds_to_a_training_loop():
    x, y = torch.randn(16, 4), torch.randint(3, (16,))
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3))
    dropouts.replace(model, lambda site: dropouts.Gaussian(site.p))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = nn.functional.cross_entropy(model(x), y) + dropouts.penalty(model) / len(x)
    loss.backward()
    optimizer.step()
    model = dropouts.plain(model)
    assert not any(isinstance(module, dropouts.Gaussian) for module in model.modules())


def test_the_share_that_is_kept_counts_what_can_be_pruned():
    sparse, gates = dropouts.SparseVariational(nn.Linear(3, 2)), dropouts.VariationalBayesian(4)
    nn.init.constant_(sparse.layer.weight, 1.0)
    with torch.no_grad():
        sparse.log_variance[0] = 5.0
    dependent = dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(5))
    assert dropouts.kept_share(nn.Sequential(sparse, gates, dependent)) == (3 + 4 + 5) / (6 + 4 + 5)
    assert dropouts.kept_share(nn.Linear(3, 2)) == 1.0
