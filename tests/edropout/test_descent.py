"""The path down to a budget: what can be dropped at once, what that frees, and where the path ends."""

from __future__ import annotations

import copy

import pytest
import torch
from searched_networks import batch, build, disturb, fingerprint, network, random_kept, small_network
from small_networks import residual
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edropout import EDropout, Target, Units, prune
from edropout.budget import Budget
from edropout.descent import Descent, by_price
from edropout.moves import Moves
from edropout.subnetworks.macs import mac_count
from edropout.target import gates_that_are_trained


def path(model: nn.Module, steps: int = 14, side: int = 8, **options: object) -> EDropout:
    """A search along a whole path, from two dense steps to a frozen state."""
    target = Target(**{"kept": 0.3, "warm_up": 2, "steps": 8, "stages": 4, "by": "curvature", **options})
    search = EDropout(model, target=target)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train(search, optimizer, range(steps), side)
    return search


def train(search: EDropout, optimizer: torch.optim.Optimizer, steps: range, side: int = 8) -> None:
    for seed in steps:
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(8, 3, side, side, generator=generator)
        optimizer.zero_grad()
        search.loss(x, torch.arange(8) % 5).backward()
        search.step(optimizer)


@pytest.mark.parametrize("shares", [{"kept": 0.3}, {"kept": None, "kept_macs": 0.4}, {"kept": 0.3, "kept_macs": 0.4}])
@pytest.mark.parametrize("by", ["curvature", "lot"])
def test_every_budget_is_met_and_one_is_used_up(shares: dict, by: str) -> None:
    torch.manual_seed(0)
    search = path(residual(5, 3), by=by, **shares)
    kept = search.kept_ratio()
    left = {"kept": kept.physical, "kept_macs": kept.macs}
    spare = [share - left[name] for name, share in shares.items() if share is not None]
    # A filter and its column in the next layer, the most that a move frees here, is 4 % of the network.
    assert search.frozen and min(spare) >= 0 and min(spare) < 0.04


def test_no_unit_of_the_last_stage_fits_any_more() -> None:
    torch.manual_seed(0)
    model = residual(5, 3)
    search = path(model, stages=1)
    budget, state = Budget(search._seen_engine(), {"parameters": 0.3}), search.best_state
    for unit in (~state).nonzero().squeeze(1).tolist():
        more = state.clone()
        more[unit] = True
        freed = budget.used(more) - budget.used(state)
        assert budget.used(more) > 0.3 or freed == 0


@pytest.mark.parametrize("by", ["curvature", "lot", "population"])
def test_layers_keep_multiples_at_every_stage(by: str) -> None:
    torch.manual_seed(0)
    model = residual(16, 3)
    units = Units(model, multiple_of=4)
    target = Target(0.4, warm_up=2, steps=8, stages=4, by=by)
    search = EDropout(model, units=units, target=target, population_size=4, freeze_epoch=1)
    optimizer, sizes = torch.optim.SGD(model.parameters(), lr=0.05), set()
    for step in range(12):
        train(search, optimizer, range(step, step + 1))
        for state in search.population:
            counts = [int(kept.sum()) for kept in units.split(state).values()]
            assert all(count and count % 4 == 0 for count in counts)
            sizes.add(tuple(counts))
    if by == "population":
        search.end_epoch()
    assert search.frozen and len(sizes) > 1 and torch.equal(units.repair_(search.best_state.clone()), search.best_state)
    assert 0.1 < search.kept_ratio().physical <= (0.4 if by != "population" else 0.5)


def test_the_share_falls_stage_by_stage_and_every_layer_keeps_a_unit() -> None:
    torch.manual_seed(0)
    model = residual(5, 3)
    search = EDropout(model, target=Target(0.2, warm_up=2, steps=8, stages=4, by="curvature"))
    optimizer, shares = torch.optim.SGD(model.parameters(), lr=0.05), []
    for step in range(12):
        train(search, optimizer, range(step, step + 1))
        shares.append(search.kept_ratio().physical)
        assert all(bool(kept.any()) for kept in search.units.split(search.best_state).values())
    assert shares[:2] == [1.0, 1.0] and shares == sorted(shares, reverse=True) and len(set(shares)) == 5
    assert all(share <= search.target.share(search.target.stage(step)) for step, share in enumerate(shares))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnext50_32x4d", "densenet121"])
def test_the_budget_counts_the_multiply_accumulates_of_the_pruned_network(name: str) -> None:
    model = build(name).eval()
    example, kept = torch.randn(2, 3, 64, 64), random_kept(model)
    engine = EDropout(model, example=example)._seen_engine()
    found = mac_count(engine.structure.graph, engine.modules, engine.structure.plan(kept))
    smaller = prune(model, kept, example)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        smaller(example[:1])
    assert found == counter.get_total_flops() // 2


def descent(model: nn.Module, **options: object) -> Descent:
    search = EDropout(model, example=torch.randn(2, 3, 8, 8), target=Target(warm_up=2, steps=1, **options))
    return Descent(search._seen_engine(), search.units, search.target)


def test_a_move_costs_what_it_frees_now() -> None:
    """A filter of the first layer has 4 x 9 weights, two of its norm and 6 x 9 of the next; a column of the last 5."""
    one = descent(small_network(), kept=0.5)
    units, total = one.moves.units, sum(p.numel() for p in small_network().parameters())
    state = torch.ones(units.num_units, dtype=torch.bool)
    drops = [units.join({"2": torch.arange(6) != 1}), units.join({"11": torch.arange(10) != 3})]
    found = one.budget.freed(state, [~kept for kept in drops])
    # Without input 3 of the last layer nobody reads output 3 of the hidden one: 96 weights and a bias.
    assert found == pytest.approx([(36 + 2 + 54) / total, (5 + 96 + 1) / total])


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_moves_go_in_the_order_of_energy_for_what_they_free(power: float) -> None:
    one = descent(small_network(), kept=0.5)
    state = torch.ones(one.moves.units.num_units, dtype=torch.bool)
    energies = torch.rand(one.moves.count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    order = by_price(energies, state, state, one.moves, one.budget, power).tolist()
    freed = one.budget.freed(state, [torch.arange(len(state)) == unit for unit in range(len(state))])
    expected = sorted(range(len(state)), key=lambda unit: float(energies[unit]) / freed[unit] ** power)
    assert order == expected


class Branches(nn.Module):
    """A sum of two filters that can go, and one with the stem, which stays."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.third, self.last = nn.Conv2d(6, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.relu(self.one(x)) + self.two(x)
        return self.last(torch.relu(self.third(y) + x).mean((2, 3)))


def test_a_channel_of_a_sum_is_a_move_if_all_its_filters_can_go() -> None:
    one = descent(Branches(), kept=0.9)
    units = one.moves.units
    numbers = {name: part.tolist() for name, part in units.split(torch.arange(units.num_units)).items()}
    assert one.moves.channels == dict(
        zip(numbers["one"], zip(numbers["one"], numbers["two"], strict=True), strict=True)
    )
    gates = torch.arange(1.0, units.num_units + 1)
    of_channels = one.moves.gradients(gates)[units.num_units :]
    expected = [gates[a] + gates[b] for a, b in zip(numbers["one"], numbers["two"], strict=True)]
    assert of_channels[numbers["one"]].tolist() == expected and of_channels.count_nonzero() == 6


def test_only_the_last_filter_of_a_channel_frees_its_columns() -> None:
    one = descent(Branches(), kept=0.9)
    units, total = one.moves.units, sum(p.numel() for p in Branches().parameters())
    state = units.join({"one": torch.arange(6) != 0})
    numbers = units.split(torch.arange(units.num_units))
    alone, beside = (torch.arange(units.num_units) == numbers["two"][channel] for channel in (0, 1))
    # A filter has four weights and a bias; the channel's columns are four weights.
    assert one.budget.freed(state, [alone, beside]) == pytest.approx([9 / total, 5 / total])
    kinds = one.moves.classes(state)
    assert kinds[numbers["two"][0]] != kinds[numbers["two"][1]] == kinds[numbers["two"][2]]
    assert kinds[numbers["one"][0]] == kinds[units.num_units + numbers["one"][0]] == -1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "alexnet"])
def test_moves_of_a_kind_free_equally_much(name: str) -> None:
    model = build(name)
    engine = EDropout(model, example=torch.randn(2, 3, 64, 64))._seen_engine()
    state = engine.units.repair_(torch.rand(engine.units.num_units, generator=torch.Generator().manual_seed(1)) < 0.5)
    moves, budget = Moves(engine.structure, engine.units), Budget(engine, {"parameters": 0.1})
    kinds = moves.classes(state)
    generator = torch.Generator().manual_seed(0)
    for kind in torch.randperm(int(kinds.max()) + 1, generator=generator)[:12].tolist():
        members = (kinds == kind).nonzero().squeeze(1).tolist()
        members = [move for move in members if moves.leave_layers(move, state)]
        drops = [torch.zeros_like(state).index_fill_(0, torch.tensor(moves.members(move)), True)
                 for move in members[:1] + members[-1:]]  # fmt: skip
        freed = budget.freed(state, drops)
        assert not freed or freed[0] == pytest.approx(freed[-1])


def test_layers_that_are_not_trained_stay() -> None:
    model = network()
    for parameter in model[6].parameters():
        parameter.requires_grad_(False)
    search = path(model, kept=0.8)
    kept = search.units.split(search.best_state)
    assert kept["6"].all() and not kept["2"].all()
    assert not gates_that_are_trained(search.units, dict(model.named_modules()), {"2": ["3"]})[12:24].any()


def test_the_control_takes_the_same_share_of_every_layer() -> None:
    torch.manual_seed(0)
    model = disturb(small_network(40))
    search = EDropout(model, units=Units(model, final_linear=False), target=Target(0.3, 2, 8, 4, by="lot"))
    train(search, torch.optim.SGD(model.parameters(), lr=0.05), range(12))
    shares = [float(kept.float().mean()) for kept in search.units.split(search.best_state).values()]
    assert search.frozen and max(shares) - min(shares) <= 1 / 40


@pytest.mark.parametrize("by", ["curvature", "lot"])
@pytest.mark.parametrize("stop", [1, 5])
def test_a_resumed_path_has_the_same_bits(by: str, stop: int) -> None:
    def start() -> tuple[nn.Module, EDropout, torch.optim.Optimizer]:
        model = network()
        search = EDropout(model, target=Target(0.5, warm_up=2, steps=6, stages=3, by=by))
        return model, search, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    model, search, optimizer = start()
    train(search, optimizer, range(stop))
    saved = copy.deepcopy((model.state_dict(), search.state_dict(), optimizer.state_dict()))
    train(search, optimizer, range(stop, 10))
    again, other, update = start()
    again.load_state_dict(saved[0])
    other.load_state_dict(saved[1])
    update.load_state_dict(saved[2])
    train(other, update, range(stop, 10))
    assert search.frozen and torch.equal(search.best_state, other.best_state)
    assert fingerprint(again) == fingerprint(model)
    with pytest.raises(ValueError, match="the saved"):
        EDropout(network()).load_state_dict(saved[1])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kept": None}, "needs a share"),
        ({"kept_macs": 0.0}, r"kept_macs share must be in \(0, 1\]"),
        ({"by": "magnitude"}, "by must be"),
        ({"power": -1.0}, "power >= 0"),
        ({"by": "curvature", "warm_up": 1}, "warm_up >= 2"),
    ],
    ids=str,
)
def test_bad_targets_are_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Target(**{"kept": 0.5, "warm_up": 2, "steps": 1, **options})


@pytest.mark.parametrize("by", ["population", "curvature"])
def test_a_share_out_of_reach_is_refused_before_anything_changes(by: str) -> None:
    model = network()
    before = fingerprint(model)
    search = EDropout(model, target=Target(0.01, warm_up=2, steps=1, by=by))
    with pytest.raises(ValueError, match=r"share of 0\.01 of the parameters cannot be reached"):
        search.loss(*batch())
    assert fingerprint(model) == before and search.steps == 0


def test_a_loss_that_adds_up_otherwise_than_the_target_says_is_refused() -> None:
    search = EDropout(network(), target=Target(0.5, warm_up=2, steps=1, by="curvature"))
    with pytest.raises(ValueError, match=r"is the sum over its examples.*summed=True"):
        search.loss(*batch(), criterion=nn.CrossEntropyLoss(reduction="sum"))
    assert search.steps == 0


def test_a_freeze_before_any_energy_is_refused() -> None:
    search = EDropout(network(), target=Target(0.5, warm_up=2, steps=1, by="curvature"))
    search.loss(*batch())
    with pytest.raises(ValueError, match="no energies have been learned yet"):
        search.freeze()
    assert not search.frozen
