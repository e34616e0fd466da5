"""What makes a network hard to follow: changes in place, views, buffers, tensors made on the way, and the mode."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from searched_networks import assert_energies_of_masked_networks, disturb
from torch import Tensor, nn
from torch.nn.utils.prune import l1_unstructured
from torch.utils.checkpoint import checkpoint

from edropout import EDropout, Units, mask_, prune
from edropout.energy import token_loss


class Network(nn.Module):
    """A stem that all states share, two layers with units, and a head; `middle` is what a test is about."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.identity, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.Identity(), nn.AvgPool2d(1)
        self.one, self.other, self.norm = nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1), nn.BatchNorm2d(6)
        self.classify = nn.Linear(6, 5)
        self.register_buffer("calls", torch.zeros(1))

    def middle(self, x: Tensor) -> Tensor:
        return self.one(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.norm(self.other(self.middle(self.stem(x)))).mean((2, 3)))


class ChangesAView(Network):
    def middle(self, x: Tensor) -> Tensor:
        y = self.identity(x)
        return self.one(x * 1.0) + torch.relu_(y)


class ReadsBeforeTheChange(Network):
    def middle(self, x: Tensor) -> Tensor:
        gate = self.one(x.mean((2, 3), keepdim=True).sigmoid())
        x *= gate
        return x


class ChangesWhatIsReadAgain(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x.relu_()) + x


class ChangesAndForgets(Network):
    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        F.relu(x, inplace=True)
        return x


class ChangesASlice(Network):
    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x[:, :2].relu_()
        return x


class ChangesThroughAView(Network):
    def middle(self, x: Tensor) -> Tensor:
        before = self.identity(x)
        x += self.one(x.clone())
        return self.one.bias.view(1, -1, 1, 1) * before + x


class Counts(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x * self.calls.add_(1).clamp(1, 1))


class ScalesByMode(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x).relu().mul(2.0 if self.training else 3.0)


class MakesATensor(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x + torch.arange(6).view(1, -1, 1, 1) * (self.calls + 1))


class Frozen(nn.Module):
    """Computes without gradients, which torch.fx does not record."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class HoldsSomethingFrozen(Network):
    def __init__(self) -> None:
        super().__init__()
        self.frozen = Frozen(nn.Conv2d(6, 6, 1))

    def middle(self, x: Tensor) -> Tensor:
        return self.one(x) + self.frozen(x)


class ReversedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return -gradient


class Reverses(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return ReversedGradient.apply(x)


class HoldsAGradientOfItsOwn(Network):
    def __init__(self) -> None:
        super().__init__()
        self.reverse = Reverses()

    def middle(self, x: Tensor) -> Tensor:
        return self.reverse(self.one(x))


class PoolsItsOwnWay(nn.AdaptiveAvgPool2d):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] < 2:
            raise ValueError("too small")
        return super().forward(x.clamp(min=0.1) ** 3) ** (1 / 3)


class Checkpoints(Network):
    reentrant = False

    def middle(self, x: Tensor) -> Tensor:
        return checkpoint(self.one, x, use_reentrant=self.reentrant)


class CheckpointsReentrantly(Checkpoints):
    reentrant = True


class Cosine(Network):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(self.stem(x))).mean((2, 3))
        return F.linear(F.normalize(x), F.normalize(self.classify.weight))


class GeneralizedMean(Network):
    def __init__(self) -> None:
        super().__init__()
        self.mean = PoolsItsOwnWay(2)

    def middle(self, x: Tensor) -> Tensor:
        return self.mean(self.one(x))


class Standardized(nn.Conv2d):
    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(x, weight - weight.mean((1, 2, 3), keepdim=True), bias)


class HoldsAStandardizedLayer(Network):
    def __init__(self) -> None:
        super().__init__()
        self.standardized = Standardized(6, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.standardized(self.one(x))


class DividesByItsWidth(Network):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(self.stem(x))).mean((2, 3))
        return self.classify(x) / x.shape[-1]


class AddsAcrossTheImage(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x) + self.other(x.mean((2, 3), keepdim=True))


class ViewsGroups(Network):
    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x * x.view(x.shape[0], 2, -1).mean(2).sum(1).view(-1, 1, 1, 1)


class WalksThroughParts(Network):
    """A list of the parts of a tensor that grows, as in the C2f blocks of detectors."""

    def middle(self, x: Tensor) -> Tensor:
        parts = list(self.one(x).chunk(2, 1))
        parts.extend(torch.relu(parts[-1]) * factor for factor in (1.0, 2.0))
        first, *rest = (*torch.split(self.identity(x), [2, 4], dim=1),)
        return torch.cat([*parts[1:], first[:, :1], *rest], 1)[:, :6] + torch.cat(parts[:2], 1)


class Squeezes(Network):
    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.norm(self.one(self.stem(x))).mean((2, 3), keepdim=True).squeeze())


class AddsNoise(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x + torch.rand(1))


class AddsRecordedNoise(Network):
    def middle(self, x: Tensor) -> Tensor:
        return self.one(x + torch.rand_like(x))


class TurnsGradientsOff(Network):
    def middle(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = x * 2
        return self.one(x)


class NormalisesByAFunction(Network):
    def middle(self, x: Tensor) -> Tensor:
        return F.batch_norm(self.one(x), None, None, training=self.training)


class ReluNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).relu()


class HoldsANormOfItsOwn(Network):
    def __init__(self) -> None:
        super().__init__()
        self.norm = ReluNorm(6)


class IsHooked(Network):
    def __init__(self) -> None:
        super().__init__()
        self.one.register_forward_hook(lambda module, args, output: output * 2)


class PoolsFeatures(Network):
    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(3, 5)
        self.features = nn.MaxPool1d(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(self.norm(self.one(self.stem(x))).mean((2, 3))))


class AddsAHeadInTraining(Network):
    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Conv2d(6, 5, 1), nn.BatchNorm2d(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.stem(x))
        y = self.classify(self.norm(self.other(x)).mean((2, 3)))
        return y + self.auxiliary(x).mean((2, 3)) if self.training else y


class Enlarges(Network):
    """A layer that is called in another way in eval mode, and so all layers behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.larger = nn.ConvTranspose2d(6, 6, 2, stride=2)

    def middle(self, x: Tensor) -> Tensor:
        return self.larger(self.one(x), output_size=[8, 8] if self.training else [9, 9])


class AsksForSizes(Network):
    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        count, width, height, _ = x.shape
        if height % 2 or x.dtype == torch.float16:
            return x
        rows = torch.stack([row.relu() for row in x.unbind(2)], 2) + torch.arange(height, device=x.device).view(-1, 1)
        assert rows.shape == x.shape
        return rows.reshape(count, 2, width // 2, height, height).flip(-1).flatten(1, 2)


class AsksForTheBatch(Network):
    def middle(self, x: Tensor) -> Tensor:
        x = self.one(x)
        return x.relu() if x.shape[2] == 4 and x.shape[0] < 100 else x


class HoldsAPerceptron(Network):
    """Linear layers at every pixel, behind a norm of the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.LayerNorm(6)
        self.first, self.gate, self.second = nn.Linear(6, 9), nn.Linear(6, 9), nn.Linear(9, 6)
        nn.init.uniform_(self.before.bias)

    def middle(self, x: Tensor) -> Tensor:
        y = self.before(x.permute(0, 2, 3, 1))
        y = self.second(F.gelu(self.first(y)) * self.gate(y) * 2.0)
        return self.one(x + y.permute(0, 3, 1, 2))


class ReadsWhatIsHidden(HoldsAPerceptron):
    """Part of what lies between the linear layers is read by something else, which needs all of it."""

    def middle(self, x: Tensor) -> Tensor:
        first = self.first(self.before(x.permute(0, 2, 3, 1))).relu()
        y = self.second(first + self.gate(x.movedim(1, -1)))
        return self.one(x + (y * first.mean(-1, keepdim=True)).permute(0, 3, 1, 2))


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64), torch.arange(8) % 5


@pytest.mark.parametrize(
    "make",
    [
        ChangesAView,
        ReadsBeforeTheChange,
        ChangesWhatIsReadAgain,
        ChangesAndForgets,
        PoolsFeatures,
        ScalesByMode,
        MakesATensor,
        HoldsSomethingFrozen,
        HoldsAGradientOfItsOwn,
        Checkpoints,
        CheckpointsReentrantly,
        Cosine,
        GeneralizedMean,
        HoldsAStandardizedLayer,
        DividesByItsWidth,
        AddsAcrossTheImage,
        ViewsGroups,
        WalksThroughParts,
        Squeezes,
        AddsAHeadInTraining,
        Enlarges,
        AsksForSizes,
        HoldsAPerceptron,
        ReadsWhatIsHidden,
    ],
)
def test_energies_and_pruned_network_are_exact(make: type[Network]) -> None:
    model, (x, y) = disturb(make()).double(), batch()
    search = EDropout(model, example=x)
    if make in (ScalesByMode, AddsAHeadInTraining, Enlarges):
        model.eval()  # energies are computed in eval mode, but for the batch norms
        model.norm.train()
    assert_energies_of_masked_networks(search, x, y)
    kept = search.units.kept(search.best_state)
    for training in (False, True):
        masked = copy.deepcopy(model).train(training)
        smaller = prune(masked, kept, x)
        mask_(masked, kept, x)
        assert (smaller(x) - masked(x)).abs().max().item() < 1e-10
    model.train()
    masked = copy.deepcopy(model)
    mask_(masked, search.units.kept(search.best_state), x)
    search.freeze()
    search.loss(x, y).backward()
    F.cross_entropy(masked(x), y).backward()
    for parameter, other in zip(model.parameters(), masked.parameters(), strict=True):
        found, expected = (torch.zeros(()) if p.grad is None else p.grad for p in (parameter, other))
        assert (found - expected)[other != 0].abs().max().item() < 1e-10 if found.ndim else not expected.any()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (ChangesASlice, "'relu_' changes a value in place that others read"),
        (ChangesThroughAView, "torch.fx follows it to another output"),
        (AddsNoise, "draws random numbers"),
        (AddsRecordedNoise, "draws random numbers in eval mode"),
        (TurnsGradientsOff, "switches gradients or autocast"),
        (NormalisesByAFunction, "normalises by a function"),
        (HoldsANormOfItsOwn, "a hook, or a class of your own"),
        (IsHooked, "a hook, or a class of your own"),
    ],
)
def test_what_cannot_be_followed_exactly_is_refused(make: type[Network], sentence: str) -> None:
    model, (x, y) = make().double(), batch()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=sentence):
        EDropout(model).loss(x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_weight_that_is_no_leaf_is_copied() -> None:
    model, (x, _) = disturb(Network()), batch()
    l1_unstructured(model.other, "weight", 0.5)
    model, kept = model.double().eval(), {"one": torch.arange(6) > 1}
    smaller = prune(model, kept, x)
    mask_(model, kept)
    assert (smaller(x) - model(x)).abs().max().item() < 1e-10


def test_a_network_reads_the_buffer_of_today() -> None:
    model, (x, y) = disturb(MakesATensor()).double(), batch()
    search = EDropout(model, example=x)
    model.calls.fill_(2.0)
    assert_energies_of_masked_networks(search, x, y)


def test_energies_leave_buffers_alone() -> None:
    model, (x, y) = Counts().double(), batch()
    EDropout(model).loss(x, y)
    assert model.calls.item() == 1  # the training step's own


def test_what_runs_in_one_mode_alone_is_no_unit() -> None:
    assert Units(AddsAHeadInTraining()).sizes == {"one": 6, "other": 6, "classify": 6}
    assert Units(Enlarges()).sizes == {"one": 6}


def test_what_lies_between_linear_layers_at_every_pixel_is_a_unit() -> None:
    assert Units(HoldsAPerceptron()).sizes == {"second": 9, "one": 6, "other": 6, "classify": 6}


def test_a_network_that_asks_for_sizes_is_read_for_those_of_its_inputs() -> None:
    model, (x, y) = disturb(AsksForSizes()).double(), batch()
    with pytest.raises(ValueError, match="give an example, as EDropout"):
        EDropout(model)
    search = EDropout(model, example=x)
    search.loss(x, y)
    search.loss(F.pad(x, [0, 2, 0, 2]), y)  # read anew for this size
    smaller, masked = search.prune().eval(), copy.deepcopy(model).eval()
    mask_(masked, search.units.kept(search.best_state), x)
    larger = F.pad(x[:3], [0, 2, 0, 2])
    assert (smaller(larger) - masked(larger)).abs().max().item() < 1e-10
    with pytest.raises(ValueError, match=r"pruned for inputs of \(3, 6, 6\), not \(3, 4, 4\)"):
        smaller(x)


def test_a_question_about_the_batch_must_have_the_answer_that_it_had_when_the_network_was_read() -> None:
    model, (x, y) = disturb(AsksForTheBatch()).double(), batch()
    search = EDropout(model, example=x)
    search.loss(x, y)
    with pytest.raises(ValueError, match="takes another path for this batch"):
        search.loss(x.repeat(15, 1, 1, 1), y.repeat(15))


class ReadsWidths(Network):
    """Its last layer runs along the rows of an image that may lack channels."""

    def __init__(self) -> None:
        super().__init__()
        self.widths = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.widths(self.norm(self.other(self.one(self.stem(x))))).mean((2, 3))


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.lstm, self.drop = nn.Embedding(9, 8), nn.LSTM(8, 8, batch_first=True), nn.Dropout(0.0)
        self.decoder = nn.Linear(8, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.drop(self.lstm(self.embedding(x))[0]))


@pytest.mark.filterwarnings("ignore:LanguageModel has no filters")
def test_the_inputs_of_a_decoder_at_every_word_are_units() -> None:
    model, x = LanguageModel(), torch.arange(12).view(2, 6) % 9
    search = EDropout(model, energy=token_loss)
    search.loss(x, x, criterion=lambda outputs, y: token_loss(outputs, y).mean()).backward()
    smaller, masked = search.prune(), copy.deepcopy(model)
    mask_(masked, search.units.kept(search.best_state))
    assert smaller.decoder.in_features < 8
    assert (smaller(x) - masked(x)).abs().max().item() < 1e-6


@pytest.mark.filterwarnings("ignore:Sequential has no filters")
def test_a_network_of_layers_that_cannot_be_cut_is_refused() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Linear(4, 4), nn.Flatten())
    with pytest.raises(ValueError, match="nothing can be pruned exactly: what reads or makes the values of '1'"):
        EDropout(model, example=torch.randn(2, 3, 4, 4))


def test_a_layer_that_cannot_be_cut_is_kept_whole() -> None:
    model, (x, y) = disturb(ReadsWidths()).double(), batch()
    search = EDropout(model, energy=lambda outputs, _: outputs.mean(1))
    with pytest.warns(UserWarning, match="kept whole, .*: 'widths'"):
        search.loss(x, y, criterion=lambda outputs, _: outputs.sum())
    assert search.units.split(search.population)["widths"].all()
    masked, smaller = copy.deepcopy(model).eval(), search.prune().eval()
    mask_(masked, search.units.kept(search.best_state))
    assert (smaller(x) - masked(x)).abs().max().item() < 1e-10
