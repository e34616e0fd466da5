"""How a network takes part: names, permuted units, resuming, going back, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from dense import LanguageModel, mlp, name_of, state, tokens
from torch import nn

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks, Tiles, maximum_entropy


def inputs(network: nn.Module) -> torch.Tensor:
    return (
        tokens() if isinstance(network, LanguageModel) else torch.linspace(-1, 1, 55, dtype=torch.float64).view(5, 11)
    )


def outputs(network: nn.Module) -> torch.Tensor:
    y = network(inputs(network))
    return y[0] if isinstance(y, tuple) else y


def train(approximate: ApproximateDropout, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        (outputs(approximate.network) ** 2).mean().backward()
        approximate.step(optimizer)


@pytest.mark.parametrize("build", [mlp, LanguageModel])
@pytest.mark.parametrize("pattern", [Blocks(), Tiles(size=8)], ids=name_of)
def test_names_parameters_and_the_way_back(build, pattern):
    network = build()
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    saved = copy.deepcopy(network.state_dict())
    approximate = ApproximateDropout(network, pattern=pattern)
    assert list(network.state_dict()) == list(saved)
    assert all(value is parameters[name] for name, value in network.named_parameters())
    network.load_state_dict(saved)
    train(approximate, torch.optim.SGD(network.parameters(), lr=0.1), 2)
    trained = outputs(network.eval())
    assert approximate.remove() is network and dict(network.named_modules()) == modules
    assert not network.training and torch.equal(outputs(network), trained)


@pytest.mark.parametrize("build", [mlp, LanguageModel])
def test_units_change_places_and_the_function_stays(build):
    torch.manual_seed(0)
    network = build()
    approximate = ApproximateDropout(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    train(approximate, optimizer, 3)
    twin, twins_optimizer = copy.deepcopy((network, optimizer))
    before, weight = (
        outputs(network.eval()),
        approximate._wiring.modules["3" if build is mlp else "words"].weight.clone(),
    )
    approximate.end_epoch(optimizer)
    assert not torch.equal(approximate._wiring.modules["3" if build is mlp else "words"].weight, weight)
    torch.testing.assert_close(outputs(network), before, rtol=1e-10, atol=1e-12)
    for net, one in (
        (network, optimizer),
        (twin.eval(), twins_optimizer),
    ):  # A plain step shows that Adam's state moved.
        one.zero_grad()
        (outputs(net) ** 2).mean().backward()
        one.step()
    torch.testing.assert_close(outputs(network), outputs(twin), rtol=1e-8, atol=1e-10)


def test_units_stay_in_their_places_where_that_is_wanted_or_needed():
    for network, pattern in [(mlp(), Blocks(permuted=False)), (mlp(), Rows()), (mlp(), SomeBlocks(4))]:
        before = copy.deepcopy(network.state_dict())
        ApproximateDropout(network, pattern=pattern).end_epoch()
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network = LanguageModel(tied=True)
    before = network.embedding.weight.clone()
    ApproximateDropout(network).end_epoch()
    assert torch.equal(network.embedding.weight, before)


@pytest.mark.parametrize("own", [False, True])
def test_a_resumed_training_has_the_same_bits(own):
    def make(saved=None):
        torch.manual_seed(0)
        network = mlp()
        approximate = ApproximateDropout(network, generator=torch.Generator().manual_seed(3) if own else None)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        if saved:
            network.load_state_dict(saved[0])
            optimizer.load_state_dict(saved[1])
            approximate.load_state_dict(saved[2])
            torch.set_rng_state(saved[3])
        return network, optimizer, approximate

    network, optimizer, approximate = make()
    train(approximate, optimizer, 3)
    approximate.end_epoch(optimizer)
    parts = (network, optimizer, approximate)
    saved = [*(copy.deepcopy(part.state_dict()) for part in parts), torch.get_rng_state()]
    train(approximate, optimizer, 4)
    again, optimizer, approximate = make(saved)
    train(approximate, optimizer, 4)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))


def test_a_generator_of_its_own_leaves_torchs_alone():
    approximate = ApproximateDropout(mlp(), generator=torch.Generator().manual_seed(0))
    before = torch.get_rng_state()
    outputs(approximate.network)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shared", [False, True])
def test_patterns_are_new_in_each_iteration_and_shared_if_so_wanted(shared):
    torch.manual_seed(0)
    approximate = ApproximateDropout(LanguageModel(), pattern=Blocks(maximum_entropy), shared=shared)
    seen, same = set(), True
    for _ in range(12):
        outputs(approximate.network)
        choices = [approximate.iteration.choice(place) for place in approximate.places]
        same &= len(set(choices)) == 1
        outputs(approximate.network)  # A second pass of the same iteration.
        assert choices == [approximate.iteration.choice(place) for place in approximate.places]
        seen.add(tuple(choices))
        approximate.discard()
    assert len(seen) > 6 and same == shared


def test_each_place_has_its_own_rate_unless_one_is_given():
    network = nn.Sequential(
        nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.75), nn.Linear(8, 2)
    )
    assert [place.rate for place in ApproximateDropout(copy.deepcopy(network)).places] == [0.5, 0.75]
    assert [place.rate for place in ApproximateDropout(network, 0.3).places] == [0.3, 0.3]


def test_a_copy_of_the_network_goes_its_own_way():
    torch.manual_seed(0)
    approximate = ApproximateDropout(mlp())
    twin = copy.deepcopy(approximate)
    before = [parameter.clone() for parameter in approximate.network.parameters()]
    train(twin, torch.optim.SGD(twin.network.parameters(), lr=0.1), 2)
    assert all(torch.equal(a, b) for a, b in zip(before, approximate.network.parameters(), strict=True))
    assert not torch.equal(before[0], next(twin.network.parameters()))


@pytest.mark.parametrize("recurrent", [False, True])
def test_sleeping_units_keep_their_state(recurrent):
    torch.manual_seed(0)
    approximate = ApproximateDropout(LanguageModel(0.5), recurrent=recurrent)
    before = state()
    _, last = approximate.network(tokens(), before)
    kept = approximate.iteration.kept(approximate.places[1]).units  # Behind the second layer.
    same = (last[1][1] == before[1][1]).all(0)
    assert int(same.sum()) == (37 - len(range(37)[kept]) if recurrent else 0) and not same[kept].any()


class Loop(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (mlp, {"rate": 1.0}, "rate must be at least 0 and less than 1, not 1.0"),
        (mlp, {"rate": -0.5}, "rate must be at least 0"),
        (lambda: mlp(1.0), {}, "rate must be at least 0 and less than 1, not 1.0"),
        (mlp, {"rate": 0.98}, "dropout '2' has 37 units in a row, fewer than the 50 pieces that Blocks"),
        (mlp, {"rate": 0.98, "pattern": SomeBlocks(8)}, "keeps less than one of 8 blocks"),
        (mlp, {"pattern": SomeBlocks(64)}, "fewer than the 64 pieces"),
        (mlp, {"pattern": Tiles(size=32)}, "dropout '2' has 2 tiles in a row, fewer than the 3 pieces"),
        (LanguageModel, {"pattern": Tiles(size=8), "recurrent": True}, "recurrent=True needs a pattern of units"),
        (lambda: nn.Linear(2, 2), {}, "Linear has no place for approximate dropout: it needs an nn.Dropout next to"),
        (lambda: nn.Sequential(nn.Conv2d(1, 1, 1), nn.Dropout(), nn.Flatten()), {}, "has no place"),
        (lambda: nn.Sequential(nn.Linear(4, 4), nn.Dropout()), {"pattern": Tiles(size=1)}, "no linear layer or LSTM"),
        (Loop, {}, "torch.fx cannot follow Loop"),
    ],
)  # fmt: skip
def test_bad_input_gets_a_sentence_and_changes_nothing(build, options, sentence):
    network = build()
    before = dict(network.named_modules())
    with pytest.raises(ValueError, match=sentence):
        ApproximateDropout(network, **options)
    assert dict(network.named_modules()) == before


def test_an_lstm_needs_time_batch_and_features():
    network = nn.Sequential(nn.LSTM(8, 8, 2, dropout=0.5)).double()
    ApproximateDropout(network)
    with pytest.raises(ValueError, match="time, batch and features"):
        network(torch.randn(5, 8, dtype=torch.float64))


def test_layers_that_cannot_be_cut_stay():
    torch.manual_seed(0)
    same = nn.Linear(6, 6)
    bidirectional = nn.Sequential(nn.Linear(4, 6), nn.Dropout(), nn.LSTM(6, 3, bidirectional=True)).double()
    assert ApproximateDropout(bidirectional).places[0].width == 6 and type(bidirectional[2]) is nn.LSTM
    twice = nn.Sequential(nn.Linear(6, 6), nn.Dropout(), same, nn.Dropout(), same)
    ApproximateDropout(twice)
    assert type(twice[2]) is nn.Linear
    twice(torch.randn(2, 6)).sum().backward()


@pytest.mark.parametrize("options", [{"max_norm": 1.0}, {"sparse": True}, {"scale_grad_by_freq": True}])
def test_an_embedding_that_looks_at_all_of_its_rows_stays_whole(options):
    network = nn.Sequential(nn.Embedding(9, 8, **options), nn.Dropout(), nn.Linear(8, 2))
    ApproximateDropout(network)
    assert type(network[0]) is nn.Embedding
    network(torch.arange(6)).sum().backward()


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_layer_with_hooks_stays_whole(register):
    network = mlp()
    getattr(network[3], register)(lambda *_: None)
    approximate = ApproximateDropout(network)
    assert type(network[3]) is nn.Linear and type(network[0]) is not nn.Linear
    outputs(approximate.network).sum().backward()


def test_a_pass_that_failed_does_not_shift_the_places_of_the_next():
    network = LanguageModel(0.5)
    approximate = ApproximateDropout(network)
    lstm = network.lstm.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        outputs(network)
    lstm.remove()
    approximate.discard()
    outputs(network)
    assert list(approximate.iteration.calls.values()) == [2]


def test_units_do_not_change_places_under_a_gradient():
    network = mlp()
    approximate = ApproximateDropout(network)
    outputs(network).sum().backward()
    approximate.end_epoch()
    assert not approximate.iteration.leaves


def test_one_dropout_module_under_two_names_is_exchanged_under_both():
    drop = nn.Dropout(0.5)
    network = nn.Sequential(nn.Linear(8, 8), drop, nn.Linear(8, 6), drop, nn.Linear(6, 2))
    approximate = ApproximateDropout(network)
    assert network[1] is network[3] is not drop
    assert [place.width for place in approximate.places] == [8, 6]
    network(torch.randn(3, 8)).sum().backward()
    approximate.remove()
    assert network[1] is network[3] is drop
