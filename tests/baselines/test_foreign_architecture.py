"""A method's own architecture is stored and rebuilt; model.json can name a file of baselines/ and nothing else."""

import json

import pytest
import torch

from baselines.channelnet import build
from harness.networks import saved

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
