"""A masked network and the physically smaller one are the same function."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from searched_networks import (
    ARCHITECTURES,
    assert_energies_of_masked_networks,
    build,
    disturb,
    random_kept,
    relative_difference,
    small_network,
)
from torch import nn

from edropout import EDropout, Units
from edropout.subnetworks.removal import kept_units, mask_, prune
from edropout.subnetworks.tracing import trace


def outputs_and_gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.clone().requires_grad_()
    logits = model(x)
    logits.square().mean().backward()
    return logits.detach(), x.grad


@pytest.mark.parametrize("multiple_of", [1, 8])
@pytest.mark.parametrize("name", ["small", *ARCHITECTURES])
def test_pruned_network_equals_the_masked_one(name: str, multiple_of: int) -> None:
    torch.manual_seed(0)
    model = (disturb(small_network()) if name == "small" else build(name)).double()
    size = ARCHITECTURES.get(name, 8)
    x = torch.randn(4, 3, size, size, dtype=torch.float64)
    kept = random_kept(model, prune_stem=True, hidden_linear=True)
    multiple_of = min(multiple_of, 2) if name == "small" else multiple_of  # of six filters
    smaller, masked = prune(model, kept, x, multiple_of=multiple_of), copy.deepcopy(model)
    mask_(masked, kept)
    assert sum(p.numel() for p in smaller.parameters()) < 0.5 * sum(p.numel() for p in model.parameters())
    for training in (False, True):
        expected = outputs_and_gradients(masked.train(training), x)
        actual = outputs_and_gradients(smaller.train(training), x)
        assert relative_difference(actual[0], expected[0]) < 1e-10
        assert relative_difference(actual[1], expected[1]) < 1e-10


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "regnet_y_400mf", "small"])
def test_pruning_twice_equals_pruning_once_with_both(name: str) -> None:
    torch.manual_seed(0)
    model = disturb(small_network()) if name == "small" else build(name)
    x = torch.randn(2, 3, 64 if name != "small" else 8, 64 if name != "small" else 8)
    first = random_kept(model, 0.7, hidden_linear=True)
    second = {layer: mask.roll(1) for layer, mask in first.items()}
    both = {layer: first[layer] & second[layer] for layer in first}
    twice, once = prune(prune(model, first, x), second, x), prune(model, both, x)
    assert {n: p.shape for n, p in twice.state_dict().items()} == {n: p.shape for n, p in once.state_dict().items()}
    assert torch.allclose(twice.eval()(x), once.eval()(x), atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121"])
def test_filled_widths_are_multiples_or_whole_and_can_be_pruned_again(name: str) -> None:
    model, x = build(name), torch.randn(2, 3, 64, 64)
    kept = random_kept(model, prune_stem=True, hidden_linear=True)
    smaller, odd = prune(model, kept, x, multiple_of=8), prune(model, kept, x)
    full = dict(model.named_modules())
    widths = {layer: module.out_channels for layer, module in smaller.named_modules() if isinstance(module, nn.Conv2d)}
    assert all(width % 8 == 0 or width == full[layer].out_channels for layer, width in widths.items())
    assert any(module.out_channels != widths[layer] for layer, module in odd.named_modules() if layer in widths)
    inputs = {layer: smaller.get_submodule(layer).in_channels for layer in widths}
    assert all(width % 8 == 0 or width in (3, full[layer].in_channels) for layer, width in inputs.items())
    back = prune(smaller, kept, x)
    assert torch.equal(back.eval()(x), odd.eval()(x))
    assert {n: v.shape for n, v in back.state_dict().items()} == {n: v.shape for n, v in odd.state_dict().items()}


@pytest.mark.parametrize("multiple_of", [1, 4])
@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "small"])
def test_kept_and_state_dict_rebuild_the_pruned_network(name: str, multiple_of: int) -> None:
    size = 8 if name == "small" else 32
    make = small_network if name == "small" else lambda: build(name)
    x = torch.randn(2, 3, size, size)
    smaller = prune(make(), random_kept(make(), hidden_linear=True), x, multiple_of=multiple_of).eval()
    kept = {layer: torch.tensor(mask.tolist()) for layer, mask in smaller.kept.items()}
    rebuilt = prune(make(), kept, x, multiple_of=multiple_of).eval()
    rebuilt.load_state_dict(smaller.state_dict())
    assert torch.equal(rebuilt(x), smaller(x))
    assert torch.equal(copy.deepcopy(smaller)(x), smaller(x))


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "shufflenet_v2_x0_5"])
def test_channels_move_alike_in_both_memory_formats_and_stay_last(name: str) -> None:
    torch.manual_seed(0)
    model = build(name).double()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    smaller = prune(model, random_kept(model), x).train()
    last = copy.deepcopy(smaller).to(memory_format=torch.channels_last)
    formats = []

    def look(module: nn.Module, args: tuple, y: torch.Tensor) -> None:
        last = [value.ndim == 4 and value.is_contiguous(memory_format=torch.channels_last) for value in (args[0], y)]
        formats.extend(last[1:] if last[0] else ())

    for module_name, module in last.named_modules():
        if module_name.startswith("reindex"):
            module.register_forward_hook(look)
    expected = outputs_and_gradients(smaller, x)
    found = outputs_and_gradients(last, x.contiguous(memory_format=torch.channels_last))
    assert all(relative_difference(one, other) < 1e-10 for one, other in zip(found, expected, strict=True))
    gradients = {n: p.grad for n, p in smaller.named_parameters()}
    assert all(torch.allclose(p.grad, gradients[n], atol=1e-10) for n, p in last.named_parameters())
    assert formats and all(formats)


def test_pruned_network_holds_copies_and_can_be_trained() -> None:
    model = small_network()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(4, 3, 8, 8)
    smaller = prune(model, {}, x)
    optimizer = torch.optim.SGD(smaller.parameters(), lr=0.1)
    smaller(x).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.equal(smaller.state_dict()["2.weight"], before["2.weight"])


def test_kept_units_reads_what_mask_wrote() -> None:
    model = disturb(small_network())
    kept = {"2": torch.arange(6) % 2 == 0, "6": torch.arange(6) > 1, "11": torch.arange(10) < 7}
    mask_(model, kept)
    found = kept_units(model)
    assert all(torch.equal(found[layer], mask) for layer, mask in kept.items())
    assert found["0"].all() and found["9"].all()


def test_batch_norm_bias_of_a_dropped_filter_is_zero() -> None:
    model = disturb(small_network())
    mask_(model, {"2": torch.tensor([True, False, True, True, True, True])})
    assert model[3].bias[1] == 0 and model[3].weight[1] == 0 and model[3].bias[0] != 0


def test_pruned_network_runs_under_onnxruntime(tmp_path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = build("resnet18")
    x = torch.randn(2, 3, 32, 32)
    smaller = prune(model, random_kept(model), x).eval()
    torch.onnx.export(smaller, (x,), tmp_path / "smaller.onnx", dynamo=False, input_names=["x"])
    (logits,) = onnxruntime.InferenceSession(tmp_path / "smaller.onnx").run(None, {"x": x.numpy()})
    assert relative_difference(torch.from_numpy(logits), smaller(x).detach()) < 1e-4


def test_a_sum_of_branches_that_is_pooled_adaptively_is_exported_to_onnx(tmp_path) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 9, 1), nn.Conv2d(4, 9, 1)
            self.pool, self.classify = nn.AdaptiveAvgPool2d(2), nn.Linear(36, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.classify(self.pool(torch.relu(self.one(x) + self.other(x))).flatten(1))

    onnxruntime = pytest.importorskip("onnxruntime")
    x, kept = torch.randn(2, 3, 10, 10), {"one": torch.arange(9) < 5, "other": torch.arange(9) > 3}
    smaller = prune(Branches(), kept, x).eval()
    torch.onnx.export(smaller, (x,), tmp_path / "smaller.onnx", dynamo=False, input_names=["x"])
    (logits,) = onnxruntime.InferenceSession(tmp_path / "smaller.onnx").run(None, {"x": x.numpy()})
    assert relative_difference(torch.from_numpy(logits), smaller(x).detach()) < 1e-5


def test_bad_requests_are_refused_with_the_layer_named() -> None:
    model, x = small_network(), torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="'7' cannot be cut"):
        prune(model, {"7": torch.ones(6, dtype=torch.bool)}, x)
    with pytest.raises(ValueError, match=r"'2'.* must be 6 booleans"):
        prune(model, {"2": torch.ones(5, dtype=torch.bool)}, x)
    with pytest.raises(ValueError, match="'2' keeps no unit"):
        prune(model, {"2": torch.zeros(6, dtype=torch.bool)}, x)
    with pytest.raises(ValueError, match="multiple_of must be"):
        prune(model, {}, x, multiple_of=0)
    with pytest.raises(ValueError, match="cannot be cut"):
        mask_(model, {"nothing": torch.ones(6, dtype=torch.bool)})


class ReadsAWeight(nn.Module):
    """Asks a layer's weight for its type, or uses it outside of the layer."""

    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.stem, self.middle, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)
        self.tied = tied

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.middle(self.stem(x).to(self.middle.weight.dtype))
        x = nn.functional.conv2d(x, self.middle.weight) if self.tied else x
        return self.head(x).mean((2, 3))


def test_a_weight_that_is_read_outside_of_its_layer_is_not_cut() -> None:
    kept, x = {"middle": torch.arange(4) > 1}, torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="'middle' cannot be cut exactly"):
        prune(ReadsAWeight(tied=True), kept, x)
    model = ReadsAWeight(tied=False)
    smaller = prune(model, kept, x)
    mask_(model, kept)
    assert smaller.state_dict()["middle.weight"].shape == (2, 4, 1, 1)
    assert relative_difference(smaller(x).detach(), model(x).detach()) < 1e-6


class Odd(nn.Module):
    """Control flow on a size, which torch.fx cannot follow."""

    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = nn.Conv2d(6, 6, 1) if layer is None else layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[2] < 2:
            raise ValueError("too small")
        return self.work(x)

    def work(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).sigmoid()


class Caches(Odd):
    cache: torch.Tensor | None = None

    def work(self, x: torch.Tensor) -> torch.Tensor:
        self.cache = x
        return self.layer(x).sigmoid() + self.cache


class CachesBefore(Odd):
    cache: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.cache is None:
            self.cache = x.new_ones(x.shape[1:])
        return super().forward(x) + self.cache


class DropsPaths(nn.Module):
    """Stochastic depth, written with a branch on the mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x.new_ones(()).bernoulli_(0.5) if self.training else x


class ChangesItsInput(Odd):
    def work(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1.0)


class Around(nn.Module):
    """A stem, a layer, an odd module beside its own shortcut, and a head."""

    def __init__(self, odd: nn.Module) -> None:
        super().__init__()
        self.stem, self.before = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.norm, self.odd, self.after, self.head = nn.BatchNorm2d(6), odd, nn.Conv2d(6, 6, 1), nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.before(self.stem(x)))
        x = self.odd(x) + x
        return self.head(self.after(x).mean((2, 3)))


@pytest.mark.parametrize(
    "odd", [Odd(), Caches(), CachesBefore(), DropsPaths(), ChangesItsInput()], ids=lambda odd: type(odd).__name__
)
def test_a_module_that_cannot_be_followed_is_kept_whole(odd: nn.Module) -> None:
    torch.manual_seed(0)
    model = disturb(Around(odd)).double()
    graph, modules = trace(model)
    assert graph.whole == {"odd"} and modules["odd"] is odd
    x, y = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    search = EDropout(model, workers=2)
    odd.eval()  # energies are computed without random dropping
    assert_energies_of_masked_networks(search, x, y)
    odd.cache = None  # a tensor with history cannot be copied
    smaller = prune(model, search.units.kept(search.best_state), x).eval()
    mask_(model, search.units.kept(search.best_state))
    assert relative_difference(smaller(x).detach(), model.eval()(x).detach()) < 1e-10


def test_layers_that_share_parameters_are_not_cut() -> None:
    for tie in ("layer", "weight"):
        model = Around(Odd())
        if tie == "layer":
            model.odd.layer = model.after
        else:
            model.odd.layer.weight = model.after.weight
        assert Units(model).sizes.keys() == {"before", "head"}
        with pytest.raises(ValueError, match="'after' cannot be cut exactly"):
            prune(model, {"after": torch.arange(6) > 1}, torch.randn(2, 3, 8, 8))


def test_what_cannot_be_followed_exactly_is_refused() -> None:
    with pytest.raises(ValueError, match=r"torch.fx cannot follow it"):
        Units(Around(Odd(nn.BatchNorm2d(6))))


class TiesAndForgets(Around):
    """Two layers share a weight, one is never called."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(6, 6, 1))
        self.odd.weight = self.after.weight
        self.unused = nn.Linear(50, 50)


def test_shared_weights_stay_shared_and_the_kept_ratio_counts_what_is_left() -> None:
    model, x = TiesAndForgets(), torch.randn(2, 3, 8, 8)
    search = EDropout(model, example=x)
    smaller = search.prune()
    assert smaller.odd.weight is smaller.after.weight
    count, full = (sum(parameter.numel() for parameter in network.parameters()) for network in (smaller, model))
    assert search.kept_ratio().physical == pytest.approx(count / full)


def test_a_pruned_network_can_be_searched_and_pruned_again() -> None:
    x, y = torch.randn(8, 3, 8, 8), torch.arange(8) % 5
    search = EDropout(disturb(small_network(12)), example=x)
    again = EDropout(search.prune(), seed=1)
    again.loss(x, y)
    smallest = again.prune().eval()
    full = prune(search.model, smallest.kept, x)
    full.load_state_dict(smallest.state_dict())
    assert sum(smallest.kept["2"]) < sum(again.model.kept["2"]) < 12
    assert torch.equal(full.eval()(x), smallest(x))


def test_pruning_works_where_no_gradient_is_wanted() -> None:
    model, kept, x = small_network().eval(), {"2": torch.arange(6) > 1}, torch.randn(2, 3, 8, 8)
    expected = prune(model, kept, x)(x)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert torch.equal(prune(model, kept, x)(x), expected)


def test_pruning_leaves_each_layer_its_mode() -> None:
    model, x = small_network(), torch.randn(2, 3, 8, 8)
    model[3].eval()
    smaller = prune(model, {"2": torch.arange(6) > 1}, x)
    assert smaller.training and not smaller.get_submodule("3").training


def test_a_pruned_network_can_be_pickled_and_copied() -> None:
    class Pools(Around):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(F.max_pool2d(self.after(self.before(self.stem(x))), 8).flatten(1))

    x = torch.randn(2, 3, 8, 8)
    smaller = prune(Pools(nn.Identity()), {"after": torch.arange(6) > 1}, x)
    assert torch.equal(pickle.loads(pickle.dumps(smaller))(x), smaller(x))
    assert torch.equal(copy.deepcopy(smaller)(x), smaller(x))
