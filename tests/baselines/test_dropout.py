"""Dropout has the right mean and variance while training, and leaves nothing behind."""

import copy

import pytest
import torch
import torchvision
from small_networks import plain, residual
from tasks import make_task
from torch import nn

from baselines.dropout import ScheduledDropout, attached, fit, layers_behind_dropout, own_dropout_off, rate_of


def dropped(x, rate, *, spatial=False, training=True):
    layer = nn.Identity().train(training)
    return ScheduledDropout(spatial, lambda position: rate, 1)(layer, (x,))[0]


def test_the_mean_stays_and_the_variance_is_that_of_inverted_dropout():
    torch.manual_seed(0)
    y = dropped(torch.full((200_000,), 3.0), 0.4)
    assert set(y.unique().tolist()) == {0.0, 5.0}
    assert float(y.mean()) == pytest.approx(3.0, abs=0.03)
    assert float(y.var()) == pytest.approx(9 * 0.4 / 0.6, rel=0.02)


def test_spatial_dropout_drops_or_scales_whole_maps():
    torch.manual_seed(0)
    x = torch.randn(10, 40, 3, 3)
    y = dropped(x, 0.25, spatial=True)
    gone = (y == 0).flatten(2).all(2)
    assert 0.15 < float(gone.float().mean()) < 0.35
    assert torch.allclose(y, x / 0.75 * ~gone[:, :, None, None])


@pytest.mark.parametrize("spatial", [False, True])
def test_rate_0_and_evaluation_mode_are_the_identity(spatial):
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(dropped(x, 0.0, spatial=spatial), x)
    assert torch.equal(dropped(x, 0.5, spatial=spatial, training=False), x)


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    x = torch.ones(1000, requires_grad=True)
    y = dropped(x, 0.5)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4]),
        ("early", [0.4, 0.2, 0.0, 0.0]),
        ("late", [0.0, 0.0, 0.4, 0.4]),
    ],
)
def test_schedules_at_the_quarters_of_training(schedule, rates):
    rate = rate_of(schedule, 0.4, 0.5)
    assert [rate(quarter / 4) for quarter in range(4)] == pytest.approx(rates)


def test_dropout_acts_before_the_linear_layers_or_the_later_convolutions():
    network = plain()
    assert layers_behind_dropout(network, spatial=False) == [network[12], network[14]]
    assert layers_behind_dropout(network, spatial=True) == [network[3], network[7]]


def test_only_the_given_rate_acts_while_training():
    network = torchvision.models.squeezenet1_1(num_classes=3)
    with own_dropout_off(network):
        assert network.classifier[0].p == 0.0
    assert network.classifier[0].p == 0.5


@pytest.mark.parametrize("options", [{}, {"spatial": True}, {"schedule": "late", "cutoff": 0.5}])
def test_the_result_is_the_plain_architecture(tmp_path, options):
    network = fit(residual(), make_task(tmp_path), **options)
    assert list(network.state_dict()) == list(residual().state_dict())
    assert not any(module._forward_pre_hooks for module in network.modules())
    copy.deepcopy(network)


def test_hooks_go_even_when_training_fails():
    network = plain()
    hook = ScheduledDropout(False, lambda position: 0.5, 1)
    with pytest.raises(RuntimeError), attached(hook, [network[12]]):
        raise RuntimeError
    assert not network[12]._forward_pre_hooks


def test_rate_0_trains_the_dense_network_bit_for_bit(tmp_path):
    (tmp_path / "a").mkdir()
    torch.manual_seed(0)
    dense = plain()
    network = copy.deepcopy(dense)
    make_task(tmp_path).train(dense)
    fit(network, make_task(tmp_path / "a"), rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(dense.parameters(), network.parameters(), strict=True))


@pytest.mark.parametrize(
    ("build", "options", "sentence"),
    [
        (plain, {"rate": 1.0}, "rate must be at least 0 and less than 1, not 1.0"),
        (plain, {"schedule": "cosine"}, "schedule must be one of constant, early, late, not 'cosine'"),
        (plain, {"cutoff": 0.0}, "cutoff must be more than 0"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), {}, "needs a linear layer"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), {"spatial": True}, "needs a second convolution"),
    ],
)
def test_bad_input_is_refused_before_training(tmp_path, build, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(build(), task, **options)
    assert task.run.phase == 0
