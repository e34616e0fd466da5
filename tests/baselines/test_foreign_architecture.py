"""A method's own architecture is stored and rebuilt; model.json can name a file of baselines/ and nothing else."""

import json

import pytest
import torch

from baselines import beta_bernoulli, dropconnect, standout
from baselines.channelnet import build
from harness.networks import saved
from harness.networks.build import build as build_plain

ARGUMENTS = {"num_classes": 3, "input_shape": (1, 8, 8), "version": 3, "width": 0.125, "groups": 2}


def test_channelnet_is_rebuilt_with_the_same_outputs(tmp_path):
    network = build(**ARGUMENTS).eval()
    saved.save(tmp_path, network, name="resnet8", num_classes=3, input_shape=(1, 8, 8))
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(saved.load(tmp_path)(x), network(x))


@pytest.mark.parametrize("method", ["../paper/collect", "nobody", "os; x"])
def test_only_a_file_of_baselines_can_be_named(tmp_path, method):
    saved.save(tmp_path, build(**ARGUMENTS), name="resnet8", num_classes=3, input_shape=(1, 8, 8))
    content = json.loads((tmp_path / "model.json").read_text())
    content["built_by"]["method"] = method
    (tmp_path / "model.json").write_text(json.dumps(content))
    with pytest.raises(saved.ModelError, match="which baselines/ does not have"):
        saved.load(tmp_path)


def remembered(model, method):
    model.changed_by = {"method": method, "arguments": {"alpha": 1e-4, "speed": 10.0}}
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: standout.change(model, alpha=2.0, beta=-1.0),
        lambda model: remembered(beta_bernoulli.change(model, alpha=1e-4, speed=10.0), "beta_bernoulli"),
        lambda model: dropconnect.change(model, rate=0.3, moments=True),
    ],
    ids=["standout", "beta_bernoulli", "dropconnect"],
)
def test_a_network_that_keeps_layers_of_a_method_is_rebuilt_with_the_same_outputs(tmp_path, change):
    shape = {"num_classes": 3, "input_shape": (1, 8, 8)}
    network = change(build_plain("vgg8", **shape)).eval()
    saved.save(tmp_path, network, name="vgg8", **shape)
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(saved.load(tmp_path)(x), network(x))
