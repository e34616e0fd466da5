"""The training-loop API: what a step changes, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from searched_networks import assert_energies_of_masked_networks, batch, build, disturb, fingerprint, network
from torch import Tensor, nn
from torch.nn.utils import prune

from edropout import EDropout, Target, Units, evolution, mask_, states
from edropout.energy import energy
from edropout.subnetworks import graph, observe


def train(search: EDropout, optimizer: torch.optim.Optimizer, steps: int, first: int = 0) -> list[float]:
    losses = []
    for number in range(first, first + steps):
        loss = search.loss(*batch(seed=number))
        optimizer.zero_grad()
        loss.backward()
        search.step(optimizer)
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("optimizer", ["sgd", "adadelta", "adam"])
def test_dropped_weights_keep_their_bits_and_kept_ones_move(optimizer: str) -> None:
    model = network()
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        "adadelta": lambda p: torch.optim.Adadelta(p, weight_decay=0.1),
        "adam": lambda p: torch.optim.Adam(p, weight_decay=0.1),
    }[optimizer]
    search, update = EDropout(model), make(model.parameters())
    train(search, update, 2)
    before = copy.deepcopy(model.state_dict())
    train(search, update, 1, first=2)
    after, kept = model.state_dict(), search.units.kept(search.best_state)
    for layer, names in {
        "2": ["2.weight", "3.weight", "3.bias", "3.running_mean"],
        "6": ["6.weight", "6.bias"],
    }.items():
        for name in names:
            assert torch.equal(after[name][~kept[layer]], before[name][~kept[layer]])
            assert not torch.equal(after[name][kept[layer]], before[name][kept[layer]])
    assert torch.equal(after["11.weight"][:, ~kept["11"]], before["11.weight"][:, ~kept["11"]])
    assert update.state[model[2].weight].keys() and update.param_groups[0]["params"][0] is model[0].weight


class Bottleneck(nn.Module):
    """Two layers of eight channels whose sum a 1x1 convolution reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.one, self.two = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
        self.reader, self.last = nn.Conv2d(8, 6, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.last(torch.relu(self.reader(torch.relu(self.one(x) + self.two(x)))).mean((2, 3)))


def test_weights_of_the_channels_that_a_sum_is_filled_up_with_keep_their_bits() -> None:
    torch.manual_seed(0)
    model = Bottleneck()
    search = EDropout(model)
    search.loss(*batch())
    search.freeze()
    left = torch.tensor([True] * 6 + [False] * 2)  # six of eight channels
    reader = torch.tensor([True, True, True, False, False, False])
    search.frozen_state = search.units.join({"one": left, "two": left, "reader": reader, "last": torch.ones(6) > 0})
    before = model.reader.weight.detach().clone()
    train(search, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1), 2)
    moved = model.reader.weight.flatten(1) != before.flatten(1)
    assert torch.equal(moved, reader[:, None] & left)


def test_a_step_equals_a_step_of_the_pruned_network() -> None:
    model = network().double()
    search = EDropout(model)
    x, y = batch(dtype=torch.float64)
    search.loss(x, y)
    search.freeze()
    smaller = search.prune().train()
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
    one, other = torch.optim.SGD(model.parameters(), **options), torch.optim.SGD(smaller.parameters(), **options)
    for _ in range(3):
        loss = search.loss(x, y)
        one.zero_grad()
        loss.backward()
        search.step(one)
        expected = nn.functional.cross_entropy(smaller(x), y)
        other.zero_grad()
        expected.backward()
        other.step()
        assert abs(loss.item() - expected.item()) < 1e-12
    assert all(
        torch.allclose(value, smaller.state_dict()[name], atol=1e-12)
        for name, value in search.prune().state_dict().items()
    )


def test_energies_are_those_of_the_masked_network() -> None:
    model = build("resnet18").double().train()
    search = EDropout(model)
    x, y = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.arange(4)
    assert_energies_of_masked_networks(search, x, y)


class IdentityShortcut(nn.Module):
    """A block whose shortcut is a step of its own that comes after the first switched layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.relu = nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True)
        self.conv, self.norm, self.shortcut = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Identity()
        self.classify = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.norm(self.conv(x))
        return self.classify(self.relu(y + self.shortcut(x)).mean((2, 3)))


def test_values_that_states_share_outlive_their_last_reader_among_the_shared_steps() -> None:
    model = IdentityShortcut().double().train()
    search, (x, y) = EDropout(model), batch(dtype=torch.float64)
    assert_energies_of_masked_networks(search, x, y)


def test_best_energy_never_rises_on_the_same_batch() -> None:
    search, best = EDropout(network()), []
    for _ in range(6):
        search.loss(*batch(), evolve=True)
        best.append(search.energies.min().item())
    assert best == sorted(best, reverse=True)


def test_reevaluated_energies_belong_to_the_current_batch() -> None:
    search = EDropout(network().double(), reevaluate_every=1)
    search.loss(*batch(dtype=torch.float64))
    x, y = batch(seed=5, dtype=torch.float64)
    search.loss(x, y, evolve=True)
    masked = copy.deepcopy(search.model)
    mask_(masked, search.units.kept(search.best_state))
    assert abs(energy(masked(x), y).item() - search.energies.min().item()) < 1e-10


def test_evaluation_changes_nothing() -> None:
    model = network()
    search = EDropout(model)
    search.loss(*batch())
    before, state = fingerprint(model), search.state_dict()
    x, _ = batch(seed=9)
    search.full([x])(x)
    search.prune([x])(x)
    search.kept_ratio()
    assert fingerprint(model) == before and model.training
    assert torch.equal(search.state_dict()["generator"], state["generator"])


def test_recalibrated_eval_mode_equals_train_mode_on_the_same_batch() -> None:
    search = EDropout(network().double())
    x, y = batch(dtype=torch.float64)
    search.loss(x, y)
    smaller = search.prune([x])
    evaluated = smaller(x)
    # running_var is unbiased, the batch's own is not: 8 x 64 values differ by 512 / 511
    assert torch.allclose(evaluated, smaller.train()(x), atol=1e-2)


@pytest.mark.parametrize("workers", [1, 3])
def test_no_bit_depends_on_the_number_of_workers(workers: int) -> None:
    states = []
    for count in (2, workers):
        model = network()
        search = EDropout(model, workers=count)
        train(search, torch.optim.SGD(model.parameters(), lr=0.1), 4)
        states.append((fingerprint(model), search.energies.tolist(), search.population.tolist()))
    assert states[0] == states[1]


def test_resuming_continues_with_the_same_bits() -> None:
    def start() -> tuple[nn.Module, EDropout, torch.optim.Optimizer]:
        model = network()
        return model, EDropout(model), torch.optim.SGD(model.parameters(), lr=0.1)

    model, search, optimizer = start()
    train(search, optimizer, 3)
    saved = copy.deepcopy((model.state_dict(), search.state_dict(), optimizer.state_dict()))
    train(search, optimizer, 3, first=3)
    again, other, update = start()
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    update.load_state_dict(saved[2])
    train(other, update, 3, first=3)
    assert fingerprint(again) == fingerprint(model)
    assert torch.equal(other.population, search.population) and torch.equal(other.energies, search.energies)


def test_a_converged_population_freezes() -> None:
    search = EDropout(network())
    search.population = search.population[:1].repeat(8, 1)
    search.loss(*batch())
    assert search.frozen and torch.equal(search.best_state, search.population[0])


def test_the_freeze_epoch_freezes_and_stops_the_evolution() -> None:
    search = EDropout(network(), freeze_epoch=2)
    for epoch in range(2):
        assert not search.frozen and search.epoch == epoch
        search.loss(*batch(seed=epoch), evolve=True)
        search.end_epoch()
    best, generator = search.best_state.clone(), search.generator.get_state()
    search.loss(*batch(seed=7))
    assert search.frozen and torch.equal(search.best_state, best)
    assert torch.equal(search.generator.get_state(), generator)
    assert len(search.history) == 2 and search.history[0]["best_energy"] <= search.history[0]["mean_energy"]


def test_kept_ratio_counts_the_pruned_network() -> None:
    search = EDropout(network())
    search.loss(*batch())
    ratio, smaller = search.kept_ratio(), search.prune()
    left = sum(p.numel() for p in smaller.parameters())
    assert ratio.physical == pytest.approx(left / sum(p.numel() for p in search.model.parameters()))
    kept = search.units.kept(search.best_state)
    # filters of 4 x 9 without bias, of 12 x 9 with bias, columns of 5
    counted = 36 * kept["2"].sum() + 109 * kept["6"].sum() + 5 * kept["11"].sum()
    assert ratio.authors == pytest.approx(counted.item() / (36 * 12 + 109 * 12 + 5 * 10))


def test_clean_filters_survive_noisy_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.Conv2d(4, 20, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 2)
    )
    with torch.no_grad():
        for layer in (model[0], model[1]):
            layer.weight.fill_(0.5)
            layer.bias.zero_()
        model[5].bias.zero_()
        # The first ten features vote for the brighter class, the others against it.
        model[5].weight.copy_(torch.tensor([[-1.0] * 10 + [1.0] * 10, [1.0] * 10 + [-1.0] * 10]))
    x, y = torch.ones(8, 1, 2, 2), torch.ones(8, dtype=torch.int64)
    search = EDropout(model, units=Units(model, final_linear=False))
    for _ in range(60):
        search.loss(x, y, evolve=True)
    kept = search.units.kept(search.best_state)["1"]
    assert kept[:10].sum() >= kept[10:].sum() + 6


def test_the_authors_operator_is_a_variant() -> None:
    search = EDropout(network(), mutation=evolution.mutate_as_released)
    search.population = search.population[:1].repeat(8, 1)
    search.energies.fill_(torch.inf)
    search.loss(*batch())
    assert not search.frozen


def test_only_the_states_whose_turn_it_is_can_change() -> None:
    search = EDropout(network(), candidates_per_step=2, reevaluate_every=0)
    for step in range(5):
        before = search.population.clone()
        search.loss(*batch(seed=step), evolve=True)
        changed = (search.population != before).any(1).nonzero().squeeze(1).tolist()
        assert set(changed) <= {2 * step % 8, 2 * step % 8 + 1}
    with pytest.raises(ValueError, match="candidates_per_step"):
        EDropout(network(), candidates_per_step=9)


def test_energies_on_a_part_of_the_batch_are_those_of_that_part() -> None:
    model, (x, y) = network().double(), batch(dtype=torch.float64)
    part, whole = EDropout(copy.deepcopy(model), energy_examples=4), EDropout(copy.deepcopy(model))
    part.loss(x, y)
    whole.loss(x[:4], y[:4])
    assert torch.allclose(part.energies, whole.energies, rtol=0, atol=1e-12)
    assert torch.equal(part.population, whole.population)


def test_energies_in_less_precision_are_near_and_training_keeps_its_own() -> None:
    model, (x, y) = network(), batch()
    exact = EDropout(copy.deepcopy(model), reevaluate_every=1)
    near = EDropout(copy.deepcopy(model), energy_dtype=torch.bfloat16)
    exact.loss(x, y)
    loss = near.loss(x, y)
    assert near.energies.dtype == loss.dtype == torch.float32
    difference = (near.energies - exact.energies).abs()
    assert 0 < difference.max() < 0.05 * exact.energies.abs().max()


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "small"])
def test_weights_that_are_cast_once_for_all_candidates_give_the_bits_of_each_candidates_cast(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, side = (network(), 8) if name == "small" else (build(name).train(), 32)
    x, y = torch.randn(4, 3, side, side), torch.arange(4)
    search = EDropout(model, example=x)
    candidates = search._seen_engine().candidates
    with torch.autocast("cpu", torch.bfloat16):
        once = candidates.energies(search.population, x, y)
        cast = candidates._cast()
        monkeypatch.setattr(candidates, "_cast", dict)
        assert torch.equal(candidates.energies(search.population, x, y), once)
    assert {value.dtype for value in cast.values()} == {torch.bfloat16} and len(cast) > 2
    monkeypatch.undo()
    assert not candidates._cast()


def test_a_network_that_changed_is_read_again() -> None:
    model, (x, y) = network(), batch()
    search = EDropout(model)
    search.loss(x, y)
    model[9] = nn.Linear(*model[9].weight.shape[::-1])
    search.loss(x, y).backward()
    assert model[9].weight.grad is not None
    model.double()
    assert search.loss(x.double(), y).dtype == torch.float64


def test_a_scaler_skips_a_step_of_gradients_that_are_not_finite() -> None:
    model = network()
    search, scaler = EDropout(model), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = fingerprint(model)
    for factor, changes in ((torch.inf, False), (1.0, True)):
        optimizer.zero_grad()
        loss = search.loss(*batch())
        statistics = fingerprint(model)
        scaler.scale(loss * factor).backward()
        search.step(optimizer, scaler=scaler)
        scaler.update()
        assert (fingerprint(model) != statistics) == changes
    assert fingerprint(model) != before


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_can_be_differentiated_again(frozen: bool) -> None:
    """A gradient penalty on inputs has the gradient that it has in the pruned network, moved channels and norms too."""
    torch.manual_seed(0)
    model = disturb(Residual()).double().train()
    search = EDropout(model)
    x, y = batch(16, dtype=torch.float64)
    search.loss(x, y)
    if frozen:
        search.freeze()
    smaller = search.prune().train()

    def penalty(compute: Any) -> Tensor:
        sample = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(compute(sample), sample, create_graph=True)
        return gradient.square().sum()

    penalty(lambda sample: search.loss(sample, y)).backward()
    penalty(lambda sample: nn.functional.cross_entropy(smaller(sample), y)).backward()
    twins = dict(smaller.named_parameters())
    kept = smaller.kept
    assert not kept["conv"].all()
    for name, axis in (("conv", 0), ("norm", 0), ("classify", 1)):
        full, cut = dict(model.named_parameters())[f"{name}.weight"].grad, twins[f"{name}.weight"].grad
        rows = kept["conv"] if axis == 0 else kept["classify"]
        found = full[rows] if axis == 0 else full[:, rows]
        assert cut.abs().max() > 0 and torch.allclose(found, cut, rtol=1e-9, atol=1e-12), name


class Residual(nn.Module):
    """A branch with an odd number of channels and a norm, added to one of others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 9, 1), nn.Conv2d(4, 9, 1)
        self.norm, self.classify = nn.BatchNorm2d(9), nn.Linear(9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        return self.classify(nn.functional.silu(self.norm(self.conv(x)) + self.other(x)).mean((2, 3)))


def test_layers_that_are_not_trained_have_no_score() -> None:
    model = network()
    for parameter in model[6].parameters():
        parameter.requires_grad_(False)
    search = EDropout(model, target=Target(kept=0.5, warm_up=2, steps=4))
    train(search, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    scores = search.units.split(search.scores)
    assert not scores["6"].any() and scores["2"].any()


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel], ids=["compile", "DataParallel"])
def test_wrappers_are_looked_through(wrap: Any) -> None:
    model, (x, _) = network(), batch()
    search = EDropout(wrap(model))
    optimizer = torch.optim.SGD(wrap(model).parameters(), lr=0.1)
    train(search, optimizer, 1)
    assert search.model is model and torch.equal(search.full()(x), copy.deepcopy(model).eval()(x))
    with pytest.raises(ValueError, match="search the network itself"):
        EDropout(torch.optim.swa_utils.AveragedModel(model))


@pytest.mark.parametrize("hook", ["weight_norm", "prune"])
def test_weights_that_hooks_compute_are_copied(hook: str) -> None:
    model, (x, y) = network(), batch()
    if hook == "prune":
        prune.random_unstructured(model[6], "weight", 0.5)
    else:
        torch.nn.utils.weight_norm(model[6])
    search = EDropout(model)
    search.loss(x, y).backward()
    full = search.full([x])
    smaller = search.prune([x])
    with torch.no_grad():
        expected = copy.deepcopy(full)(x)
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(full(x), expected) and smaller(x).isfinite().all()


def test_what_cannot_be_copied_or_recalibrated_is_said() -> None:
    search, (x, y) = EDropout(network()), batch()
    search.loss(x, y)
    for act in (copy.deepcopy, lambda value: torch.save(value, io.BytesIO())):
        with pytest.raises(TypeError, match="save its state_dict"):
            act(search)
    with pytest.raises(ValueError, match="not one tensor"):
        search.prune(x)
    with pytest.raises(ValueError, match="not dict: hand in the inputs alone"):
        search.prune([{"image": x}])
    with pytest.raises(ValueError, match="the meta device"):
        EDropout(network().to("meta"))


def test_a_pruned_network_with_uneven_groups_is_not_searched_again() -> None:
    grouped = nn.Conv2d(12, 12, 1, groups=3)
    model = nn.Sequential(nn.Conv2d(3, 12, 1), grouped, nn.Flatten(), nn.Linear(768, 5))
    search = EDropout(model)
    search.loss(*batch())
    search.frozen_state = search.units.join({"1": torch.arange(12) % 12 < 5})
    with pytest.raises(ValueError, match="groups of uneven size"):
        EDropout(search.prune())


def test_a_forward_that_was_replaced_is_named() -> None:
    model = network()
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
    with pytest.raises(ValueError, match=r"forward was replaced.*under torch\.autocast"):
        EDropout(model).loss(*batch())


def test_sizes_that_come_back_are_not_analysed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5)
    )
    built = []

    class Counted(states.Engine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            built.append(args[3].shape[-1])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(states, "Engine", Counted)
    search, optimizer = EDropout(model), torch.optim.SGD(model.parameters(), lr=0.1)
    for side in (8, 6, 8, 6, 10, 8, 10):
        optimizer.zero_grad()
        search.loss(torch.randn(4, 3, side, side), torch.arange(4)).backward()
        search.step(optimizer)
    assert built == [8, 6, 10]
    for side in range(11, 11 + states.SIZES_KEPT):
        search.loss(torch.randn(4, 3, side, side), torch.arange(4))
    search.loss(torch.randn(4, 3, 8, 8), torch.arange(4))
    assert built[-1] == 8 and len(search._engines) == states.SIZES_KEPT


def test_reading_a_network_grows_with_its_depth_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts how often arguments are looked through, of a chain that changes values in place."""
    counts = []

    def follow_chain(depth: int) -> None:
        layers = [layer for _ in range(depth) for layer in (nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))]
        calls = 0
        plain = graph.substitute

        def counted(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            return plain(*args)

        with monkeypatch.context() as patch:
            for module in (graph, observe):
                patch.setattr(module, "substitute", counted)
            observe.follow(nn.Sequential(*layers), torch.randn(2, 4, 2, 2))
        counts.append(calls)

    follow_chain(20)
    follow_chain(80)
    assert counts[1] < 5 * counts[0]
