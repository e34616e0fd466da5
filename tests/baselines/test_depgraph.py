"""Torch-Pruning on the suite's path: shares, the optimiser's state, its order beside ours, storage, refusals."""

import copy

import pytest
import torch
from small_networks import residual
from tasks import make_task
from torch import nn

from baselines.depgraph import library, widths
from baselines.depgraph.fit import fit
from harness.measure.metrics import macs, parameters
from harness.networks import saved
from harness.networks.build import build

EXAMPLE = torch.zeros(1, 1, 8, 8)


def network(name="resnet8"):
    torch.manual_seed(0)
    return build(name, num_classes=10, input_shape=(1, 8, 8))


def plain():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def history(model, share, size=parameters, order="group_norm", global_pruning=True):
    return library.history_at(model, EXAMPLE, share * size(model), size, order=order, global_pruning=global_pruning)


@pytest.mark.parametrize("share", [0.5, 0.3, 0.1])
@pytest.mark.parametrize("by", ["parameters", "macs"])
def test_the_share_is_met_within_a_hundredth_of_the_network(by, share):
    model = network()
    size = parameters if by == "parameters" else lambda network: macs(network, (1, 8, 8))
    dense = size(model)
    left = widths.left_of(model, history(model, share, size), EXAMPLE)
    widths.cut_(model, left, torch.optim.SGD(model.parameters(), lr=0.1))
    assert size(model) / dense == pytest.approx(share, abs=0.01)


def test_the_cut_network_is_the_one_that_the_library_makes():
    model = network().eval()
    chosen = history(model, 0.4)
    theirs = copy.deepcopy(model)
    library.make(theirs, EXAMPLE, order="group_norm").load_pruning_history(chosen)
    widths.cut_(model, widths.left_of(model, chosen, EXAMPLE), torch.optim.SGD(model.parameters(), lr=0.1))
    x = torch.randn(4, 1, 8, 8)
    assert widths.shapes_of(model) == widths.shapes_of(theirs)
    assert torch.allclose(model(x), theirs(x), atol=1e-6)


def test_the_momentum_follows_the_weights_and_the_optimiser_steps_on_them():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.randn(8, 1, 8, 8)).square().mean().backward()
    optimizer.step()
    before = {name: optimizer.state[p]["momentum_buffer"].clone() for name, p in model.named_parameters()}
    left = widths.left_of(model, history(model, 0.4), EXAMPLE)
    widths.cut_(model, left, optimizer)
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == set(map(id, model.parameters()))
    assert len(optimizer.state) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert torch.equal(optimizer.state[parameter]["momentum_buffer"], before[name].flatten()[left[name]])
    model(torch.randn(8, 1, 8, 8)).square().mean().backward()
    optimizer.step()


def test_squared_gradients_are_the_mean_over_examples():
    model, x, y = plain(), torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    library.squared_gradients_(model, x, y, nn.functional.cross_entropy)
    expected = torch.zeros_like(model[6].weight)
    for one, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(model(one[None]), label[None])
        expected += torch.autograd.grad(loss, model[6].weight)[0].square() / 5
    assert torch.allclose(model[6].weight.grad, expected, rtol=1e-5)


def test_a_group_of_one_channel_gets_no_penalty_that_is_no_number():
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    penalty = library.make(model, EXAMPLE, order="group_norm", penalty="group")
    model(torch.randn(2, 1, 8, 8)).sum().backward()
    penalty.regularize(model)
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.parameters())


def test_following_a_network_moves_no_running_statistics():
    model = network()
    before = copy.deepcopy(model.state_dict())
    library.make(model, torch.ones(1, 1, 8, 8), order="group_norm", penalty="group")
    history(model, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_smaller_network_is_stored_and_loaded(tmp_path):
    model = network()
    widths.cut_(model, widths.left_of(model, history(model, 0.3), EXAMPLE), torch.optim.SGD(model.parameters(), lr=0.1))
    model.changed_by = {"method": "depgraph", "arguments": {"shapes": widths.shapes_of(model)}}
    saved.save(tmp_path, model, name="resnet8", num_classes=10, input_shape=(1, 8, 8))
    loaded = saved.load(tmp_path)
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(loaded(x), model.eval()(x)) and parameters(loaded) == parameters(model)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target_kept": 0}, "1 - target_kept must be at least 0 and less than 1"),
        ({}, "give target_kept, or list edropout=EDROPOUT"),
        ({"by": "weights"}, "by must be one of parameters, macs"),
        ({"importance": "l3"}, "importance must be one of group_norm"),
        ({"regularise": "dropout"}, "regularise must be one of none"),
        ({"warm_up": 0.5, "until": 0.2}, "shares of the training in this order"),
        ({"stages": 0}, "stages must be a whole number"),
    ],
)
def test_bad_hyper_parameters_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(residual(), make_task(tmp_path), **options)


def test_a_network_that_the_library_cannot_follow_is_named():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 3)

        def forward(self, x):
            return self.layer(x.detach().numpy().reshape(len(x), -1))

    with pytest.raises(ValueError, match="Torch-Pruning cannot follow Stubborn"):
        library.make(Stubborn(), EXAMPLE, order="group_norm")
