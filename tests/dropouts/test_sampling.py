"""Sampling draws anew in each pass, leaves all else as in evaluation, and gives back what it found."""

import re

import pytest
import torch
from examples import ROOT
from torch import nn

import dropouts
from dropouts.sampling import STOCHASTIC


def network():
    torch.manual_seed(0)
    hidden = nn.Sequential(nn.Linear(4, 64), nn.BatchNorm1d(64), nn.ReLU())
    return nn.Sequential(hidden, dropouts.Before(dropouts.Bernoulli(0.5), nn.Linear(64, 2)))


def test_every_layer_of_the_family_that_draws_is_known():
    layers = [one for one in vars(dropouts).values() if isinstance(one, type) and issubclass(one, nn.Module)]
    unknown = [one.__name__ for one in layers if not issubclass(one, (*STOCHASTIC, dropouts.Before))]
    assert not unknown


def test_passes_differ_and_their_mean_is_that_of_the_mask():
    model, x = network().eval(), torch.randn(3, 4)
    drawn = dropouts.sample(model, x, 4000)
    assert drawn.shape == (4000, 3, 2) and not drawn.requires_grad
    assert not torch.equal(drawn[0], drawn[1])
    error = drawn.std(0) / 4000**0.5
    assert ((drawn.mean(0) - model(x)).abs() < 5 * error).all()


def test_batch_norms_see_no_batch_and_modes_come_back():
    model = network().train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    dropouts.sample(model, 5 + torch.randn(8, 4), 3)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_modes_come_back_from_a_pass_that_fails():
    model = network().train()
    with pytest.raises(RuntimeError):
        dropouts.sample(model, torch.randn(8, 5))
    assert all(module.training for module in model.modules())


def test_torchs_own_dropout_is_sampled_too():
    model = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.5)).eval()
    drawn = dropouts.sample(model, torch.ones(1, 2), 2)
    assert not torch.equal(drawn[0], drawn[1])


def test_a_network_without_noise_is_refused():
    with pytest.raises(ValueError, match="no layer that draws"):
        dropouts.sample(nn.Linear(2, 2), torch.ones(1, 2))


def test_the_example_of_the_page_runs():
    page = (ROOT / "docs" / "dropouts.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    names = {"model": network(), "x": torch.randn(3, 4)}
    exec(example, names)
    assert names["probabilities"].sum(-1) == pytest.approx(torch.ones(3)) and names["entropy"].shape == (3,)
