"""What structured methods return is smaller, computes what the masked network computes, and travels as files."""

import numpy as np
import onnxruntime
import pytest
import torch
from small_networks import randomize_norms

from baselines.channelnet import ChannelNet
from edropout.subnetworks.removal import mask_
from harness.measure.metrics import latency, macs, parameters
from harness.networks import saved
from harness.networks.build import build as build_network
from harness.pruning.layers import inner_layers
from harness.pruning.structured import kept_counts, largest, prune_units, remove

NETWORKS = {"resnet18": (3, 32, 32), "resnet50": (3, 32, 32), "squeezenet1_1": (3, 224, 224), "alexnet": (3, 224, 224)}


def build(name):
    torch.manual_seed(0)
    return randomize_norms(build_network(name, num_classes=10, input_shape=NETWORKS[name])).eval()


def selection(network, shape, ratio=0.5):
    """Half of each inner layer, by l1 norm."""
    layers = inner_layers(network, torch.zeros(1, *shape))
    counts = kept_counts(layers, ratio)
    return {
        name: largest(network.get_submodule(name).weight.detach().abs().sum((1, 2, 3)), count)
        for name, count in counts.items()
    }


@torch.no_grad()
def difference(one, other, x):
    """Largest difference of logits, relative to their spread."""
    left, right = one(x), other(x)
    return float((left - right).abs().max() / left.std())


@pytest.mark.parametrize("name", NETWORKS)
def test_removed_masked_and_reloaded_networks_agree(tmp_path, name):
    shape = NETWORKS[name]
    network = build(name)
    kept = selection(network, shape)
    x = torch.randn(2, *shape)
    smaller = prune_units(network, kept, x).eval()
    saved.save(tmp_path, smaller, name=name, num_classes=10, input_shape=shape)
    loaded = saved.load(tmp_path)
    dense = parameters(network), macs(network, shape)
    mask_(network, kept)
    assert difference(network, smaller, x) < 1e-4
    stored = smaller.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in loaded.state_dict().items())
    assert difference(smaller, loaded, x) < 1e-5  # not zero: the loaded weights lie in another order in memory
    assert difference(smaller, remove(network, x), x) < 1e-4
    assert parameters(smaller) < dense[0] and macs(smaller, shape) < 0.7 * dense[1]
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["model.json", "model.safetensors"]


def exported(network, x, path):
    torch.onnx.export(network, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", [*NETWORKS, "channelnet", "channelnet3"])
def test_onnxruntime_agrees(tmp_path, name):
    if name in NETWORKS:
        shape = NETWORKS[name]
        network = build(name)
        network = prune_units(network, selection(network, shape), torch.zeros(1, *shape)).eval()
    else:
        shape = (3, 32, 32)
        version = 3 if name == "channelnet3" else 1
        network = ChannelNet(10, shape, version=version, width=0.25, groups=2)
        network = randomize_norms(network).eval()
    session = exported(network, torch.randn(2, *shape), tmp_path / "network.onnx")
    x = torch.randn(3, *shape)  # another batch size than the export's
    with torch.no_grad():
        expected = network(x)
    (found,) = session.run(None, {"x": x.numpy()})
    assert np.abs(found - expected.numpy()).max() < 1e-4 * float(expected.std())


def test_latency_is_a_median_with_its_range_and_names_its_conditions():
    network = build("resnet18")
    smaller = prune_units(network, selection(network, (3, 32, 32)), torch.zeros(1, 3, 32, 32))
    report = latency({"dense": network, "model": smaller}, (3, 32, 32), batch_size=2, runs=3)
    assert report["batch_size"] == 2 and report["threads"] == 1 and report["device"] == "cpu"
    assert report["dense"]["median_ms"] > 0 and report["model"]["iqr_ms"] >= 0
