"""ChannelNet has the published sizes, and its channel-wise operations act along channels, pixel by pixel."""

import pytest
import torch
from tasks import make_task
from torch import nn

from baselines.channelnet import ChannelNet, Channelwise, ChannelwiseClassifier, GroupChannelwise, fit


def weights(network):
    """Parameters without batch norm, as the paper's table counts them."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    total = sum(parameter.numel() for parameter in network.parameters())
    return total - sum(parameter.numel() for norm in norms for parameter in norm.parameters())


def build(version, *, classes=10, shape=(3, 32, 32), width=1.0, groups=2):
    return ChannelNet(classes, shape, version=version, width=width, groups=groups)


def test_version_1_has_the_published_3_7_million_parameters():
    network = build(1, classes=1000, shape=(3, 224, 224))
    assert weights(network) == pytest.approx(3.7e6, rel=0.01)


@pytest.mark.parametrize(("version", "count"), [(1, 3_690_440), (2, 2_641_928), (3, 1_618_154)])
def test_sizes_follow_from_the_layer_table(version, count):
    """The table's sums; the paper's 2.7 and 1.7 million for versions 2 and 3 are 2 % and 5 % more."""
    assert weights(build(version, classes=1000, shape=(3, 224, 224))) == count


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_small_images_give_logits(version, shape):
    network = build(version, shape=shape, width=0.125).eval()
    assert network(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("operation", [Channelwise(64), Channelwise(7), GroupChannelwise(2), GroupChannelwise(4)])
def test_channel_wise_operations_keep_shapes_and_commute_with_permuted_pixels(operation):
    torch.manual_seed(0)
    x, order = torch.randn(2, 32, 3, 4), torch.randperm(12)

    def permute(y):
        return y.flatten(2)[:, :, order].reshape(y.shape)

    assert operation(x).shape == x.shape
    assert torch.allclose(operation(permute(x)), permute(operation(x)), atol=1e-6)


def test_a_channel_depends_only_on_the_window_around_it():
    operation, x = Channelwise(8), torch.randn(1, 32, 1, 1, requires_grad=True)
    operation(x)[0, 16].sum().backward()
    touched = x.grad[0, :, 0, 0].nonzero().squeeze(1).tolist()
    assert touched == list(range(13, 21))  # 3 in front, itself, 4 behind: TensorFlow's "SAME"
    assert sum(parameter.numel() for parameter in operation.parameters()) == 8


def test_shifting_the_input_by_the_stride_shifts_each_kernels_output_by_one():
    torch.manual_seed(0)
    operation, x = GroupChannelwise(2), torch.randn(1, 64, 2, 2)
    y, shifted = operation(x), operation(torch.roll(x, 2, dims=1))
    for kernel in range(2):
        own = slice(kernel * 32 + 4, kernel * 32 + 28)  # away from the padding
        assert torch.allclose(shifted[:, own], y[:, kernel * 32 + 3 : kernel * 32 + 27], atol=1e-6)
    assert operation.convolution.weight.shape == (2, 1, 8)


def test_neighbouring_classes_share_all_but_one_feature_map():
    classifier = ChannelwiseClassifier(12, 5, (2, 3))
    x = torch.randn(1, 12, 2, 3, requires_grad=True)
    logits = classifier(x)
    assert logits.shape == (1, 5)
    logits[0, 2].backward()
    assert x.grad.abs().sum((0, 2, 3)).nonzero().squeeze(1).tolist() == list(range(2, 10))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"version": 4}, "version must be 1, 2 or 3, not 4"),
        ({"width": 0.01}, "width 0.01 leaves no channel"),
        ({"groups": 3}, "groups must divide the 512 channels"),
    ],
)
def test_bad_hyperparameters_are_refused_before_training(tmp_path, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(nn.Identity(), task, **options)
    assert task.run.phase == 0


def test_more_classes_than_feature_maps_are_refused():
    with pytest.raises(ValueError, match="33 classes are more than the 32 feature maps"):
        build(3, classes=33, width=1 / 32)


def test_initial_weights_follow_the_seed_alone(tmp_path):
    torch.manual_seed(1)
    (tmp_path / "a").mkdir()
    first = fit(nn.Identity(), make_task(tmp_path / "a", epochs=1), width=1 / 32)
    torch.manual_seed(2)
    (tmp_path / "b").mkdir()
    second = fit(nn.Identity(), make_task(tmp_path / "b", epochs=1), width=1 / 32)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
