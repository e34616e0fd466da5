"""What every layer of the family promises: evaluation without chance, state that comes back, a mean that stays."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import dropouts

UNITS = 6

NOISES = {
    "bernoulli": lambda: dropouts.Bernoulli(0.4),
    "gaussian": lambda: dropouts.Gaussian(0.4),
    "uout": lambda: dropouts.Uout(0.5),
    "continuous-uniform": lambda: dropouts.Continuous(),
    "continuous-gaussian": lambda: dropouts.Continuous(sigma=0.5),
    "continuous-unclipped": lambda: dropouts.Continuous(sigma=0.5, clipped=False),
    "variational": lambda: dropouts.Variational(UNITS),
    "variational-per_unit": lambda: dropouts.Variational(UNITS, per_unit=True),
    "advanced": lambda: dropouts.Advanced(UNITS, prior=1.0),
    "information-in_place": lambda: dropouts.Information(nn.Identity(), Mixing()),
    "scheduled": lambda: scheduled(dropouts.Gaussian(0.4)),
}
"""Layers that are the identity in evaluation mode."""

GATES = {
    "variational_bayesian": lambda: dropouts.VariationalBayesian(UNITS),
    "beta_bernoulli": lambda: dropouts.BetaBernoulli(UNITS),
    "standout": dropouts.Standout,
    "dependent": lambda: dropouts.DependentBetaBernoulli(dropouts.BetaBernoulli(UNITS)),
}
"""Layers that scale their units in evaluation mode."""

HOLDERS = {
    "variational_weights": dropouts.VariationalWeights,
    "variational_weights-per_unit": lambda layer: dropouts.VariationalWeights(layer, per_unit=True),
    "sparse_variational": dropouts.SparseVariational,
    "variational_bayesian_weights": dropouts.VariationalBayesianWeights,
    "concrete": dropouts.Concrete,
    "dropconnect": dropouts.DropConnect,
    "dropconnect-mean_weights": lambda layer: dropouts.DropConnect(layer, inference=dropouts.mean_weights),
    "dropconnect-per_example": lambda layer: dropouts.DropConnect(layer, per_example=True),
    "information": dropouts.Information,
}
"""Layers that hold a linear layer or a convolution."""

LEARNED = {
    "variational": ["logit_alpha"],
    "variational-per_unit": ["logit_alpha"],
    "advanced": ["bias_mu", "bias_sigma", "weight_mu", "weight_sigma", "weight_h", "bias_h"],
    "variational_bayesian": ["mean", "log_variance"],
    "beta_bernoulli": ["raw_a", "raw_b"],
    "dependent": ["norm.bias", "raw_sigma"],
    "variational_weights": ["logit_alpha"],
    "variational_weights-per_unit": ["logit_alpha"],
    "sparse_variational": ["log_variance"],
    "variational_bayesian_weights": ["log_variance"],
    "concrete": ["logit_rate"],
    "information": ["noise.weight", "noise.bias"],
}


class Mixing(nn.Module):
    """A linear map of the units, of images too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(UNITS, UNITS)

    def forward(self, x):
        return self.linear(x.movedim(1, -1)).movedim(-1, 1) if x.dim() == 4 else self.linear(x)


def scheduled(layer):
    wrapped = dropouts.Scheduled(layer, dropouts.ramp())
    wrapped.set_position(0.75)
    return wrapped


def vectors():
    return torch.rand(5, UNITS) + 0.5


def images():
    return torch.rand(5, UNITS, 4, 4) + 0.5


def sequences():
    return torch.rand(5, 7, UNITS) + 0.5


LINEAR = {name: lambda make=make: make(nn.Linear(UNITS, 3)) for name, make in HOLDERS.items()}
CONVOLUTIONS = {name: lambda make=make: make(nn.Conv2d(UNITS, 3, 3, padding=1)) for name, make in HOLDERS.items()}
CASES = [
    *[pytest.param(make, vectors, id=name) for name, make in {**NOISES, **GATES, **LINEAR}.items()],
    *[pytest.param(make, images, id=f"{name}-images") for name, make in {**NOISES, **GATES, **CONVOLUTIONS}.items()],
    *[pytest.param(make, sequences, id=f"{name}-sequences") for name, make in {**NOISES, **GATES, **LINEAR}.items()],
    pytest.param(lambda: dropouts.DropBlock(0.3, 3), images, id="dropblock-images"),
]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(("make", "values"), CASES)
def test_training_is_random_and_evaluation_is_not(make, values):
    layer, x = make(), values()
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("values", [vectors, images])
@pytest.mark.parametrize("make", NOISES.values(), ids=NOISES)
def test_evaluation_of_noise_is_the_identity(make, values):
    x = values()
    assert torch.equal(make().eval()(x), x)


@pytest.mark.parametrize(("make", "values"), CASES)
def test_a_loaded_state_goes_on_with_the_same_bits(make, values):
    x = values()
    layer = make()
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True), *layer.parameters()], lr=0.1)
    loss = layer(x).square().mean() + dropouts.penalty(layer)
    if loss.requires_grad:
        loss.backward()
        optimizer.step()
    torch.manual_seed(1)  # so that what is not in the state_dict differs
    other = make()
    other.load_state_dict(layer.state_dict())
    for training in (True, False):
        outputs = []
        for one in (layer.train(training), other.train(training)):
            torch.manual_seed(2)
            outputs.append(one(x))
        assert torch.equal(*outputs)
    assert torch.equal(dropouts.penalty(layer), dropouts.penalty(other))


@pytest.mark.parametrize(("make", "values"), CASES)
def test_a_trained_layer_can_be_copied(make, values):
    layer, x = make(), values()
    layer(x).sum()
    other = copy.deepcopy(layer).eval()
    assert torch.equal(other(x), layer.eval()(x))


@pytest.mark.parametrize(("make", "values"), CASES)
def test_double_precision_stays_double(make, values):
    layer, x = make().double(), values().double()
    assert layer(x).dtype == torch.float64 and layer.eval()(x).dtype == torch.float64


@pytest.mark.parametrize(("make", "values"), CASES)
def test_the_penalty_is_a_finite_scalar(make, values):
    layer = make()
    layer(values())
    value = dropouts.penalty(layer)
    assert value.shape == () and value.isfinite()


LEARNERS = [
    pytest.param(make, values, LEARNED[name], id=f"{name}-{values.__name__}")
    for layers, values in [
        ({**NOISES, **GATES, **LINEAR}, vectors),
        ({**NOISES, **GATES, **CONVOLUTIONS}, images),
    ]
    for name, make in layers.items()
    if name in LEARNED
]


@pytest.mark.parametrize(("make", "values", "names"), LEARNERS)
def test_gradients_reach_what_is_learned_from_the_data_and_from_the_penalty(make, values, names):
    layer, x = make(), values()
    if isinstance(layer, dropouts.DependentBetaBernoulli):
        nn.init.constant_(layer.norm.bias, 0.5)  # at the start, 10, everything is kept whatever the data say
    parameters = dict(layer.named_parameters())
    layer(x).square().sum().backward(retain_graph=True)
    from_data = {name: parameters[name].grad.clone() for name in names}
    layer.zero_grad()
    layer.penalty().backward()
    for name in names:
        assert from_data[name].isfinite().all() and from_data[name].abs().sum() > 0, name
        if "weight" not in name or name == "noise.weight":
            assert parameters[name].grad.abs().sum() > 0, name


NEARLY = ("advanced", "information")  # these have a mean that is only about right, or none that is kept
MEAN_KEEPING = [
    *[pytest.param(NOISES[name], vectors, id=name) for name in NOISES if name.split("-")[0] not in NEARLY],
    pytest.param(lambda: dropouts.VariationalBayesian(UNITS, log_variance=-1.0), vectors, id="variational_bayesian"),
    *[
        pytest.param(LINEAR[name], vectors, id=name)
        for name in ("variational_weights", "sparse_variational", "concrete", "dropconnect", "dropconnect-per_example")
    ],
    pytest.param(lambda: dropouts.DropBlock(0.2, 1), images, id="dropblock"),
]


@pytest.mark.parametrize(("make", "values"), MEAN_KEEPING)
def test_the_mean_over_draws_is_what_evaluation_computes(make, values):
    layer, x = make(), values()
    if isinstance(layer, dropouts.DropConnect):
        layer.inference = dropouts.mean_weights  # moment matching gives the mean after ReLU
    with torch.no_grad():
        if isinstance(layer, dropouts.DropBlock):
            draws = torch.stack([layer(x) for _ in range(2000)])
        else:
            draws = layer(x.repeat(4000, 1)).view(4000, *layer(x).shape)
            if isinstance(layer, dropouts.DropConnect) and not layer.per_example:
                draws = torch.stack([layer(x) for _ in range(4000)])
        error = draws.std(0) / len(draws) ** 0.5
        assert ((draws.mean(0) - layer.eval()(x)).abs() < 5 * error + 1e-3).all()


@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
@pytest.mark.parametrize(
    "make", [dropouts.Gaussian, dropouts.DropBlock, lambda rate: dropouts.DropConnect(nn.Linear(2, 2), rate=rate)]
)
def test_a_rate_outside_the_interval_is_refused(make, rate):
    with pytest.raises(ValueError, match="rate must be at least 0 and less than 1"):
        make(rate)


def test_other_values_out_of_bounds_are_refused():
    with pytest.raises(ValueError, match="alpha must be more than 0 and less than 1"):
        dropouts.Variational(3, alpha=1.0)
    with pytest.raises(ValueError, match="must start inside"):
        dropouts.Concrete(nn.Linear(2, 2), rate=0.0)
    with pytest.raises(ValueError, match="Uout's noise"):
        dropouts.Uout(1.5)
    with pytest.raises(ValueError, match="must be positive"):
        dropouts.Continuous(sigma=0.0)


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)
def test_a_module_without_weights_is_refused(make):
    with pytest.raises(TypeError, match="linear layer or a convolution, not of ReLU"):
        make(nn.ReLU())


@pytest.mark.parametrize("name", ["variational_bayesian", "beta_bernoulli", "variational-per_unit"])
def test_another_number_of_units_is_refused(name):
    with pytest.raises(ValueError, match="made for 6 units and reads 4"):
        {**NOISES, **GATES}[name]()(torch.rand(5, 4))


@pytest.mark.parametrize("make", HOLDERS.values(), ids=HOLDERS)
def test_a_held_layer_may_have_no_bias_and_an_image_layer_may_have_groups(make):
    layer = make(nn.Conv2d(6, 4, 3, groups=2, bias=False))
    assert layer(images()).shape == layer.eval()(images()).shape == (5, 4, 2, 2)


def test_an_optimiser_with_any_of_them_lowers_the_loss():
    x, y = torch.randn(64, 8), torch.randint(3, (64,))
    for make in HOLDERS.values():
        network = nn.Sequential(make(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 3))
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        losses = []
        for _ in range(60):
            loss = functional.cross_entropy(network(x), y) + dropouts.penalty(network) / 60_000
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert sum(losses[-5:]) < sum(losses[:5])
