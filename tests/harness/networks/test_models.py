"""Architectures by name: the published sizes, any family, what cannot be built, saved and loaded again."""

import copy
import json
import sys

import pytest
import torch

from edropout import EDropout, mask_, prune
from harness.networks import saved
from harness.networks.build import ModelError, main
from harness.networks.build import build as build_network


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(name, shape=(3, 32, 32), classes=10, seed=0):
    torch.manual_seed(seed)
    return build_network(name, num_classes=classes, input_shape=shape)


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "size", "millions"),
    [
        ("resnet18", 32, 11.1),
        ("resnet34", 32, 21.2),
        ("resnet50", 32, 23.5),
        ("resnet101", 32, 42.5),
        ("alexnet", 224, 57.0),
        ("squeezenet1_1", 224, 0.72),
    ],
)
def test_networks_have_the_published_number_of_parameters(name, size, millions):
    # The published column is cut off after its last digit, not rounded: 11.17 million is printed as 11.1.
    step = 0.01 if millions < 1 else 0.1
    assert millions <= parameters(build(name, (3, size, size))) / 1e6 < millions + step


def test_small_networks_have_the_sizes_of_their_papers():
    assert parameters(build("resnet20")) == 269_722 + 2_752  # option A of the paper, plus its two 1x1 shortcuts
    assert 70_000 < parameters(build("resnet8", (1, 8, 8))) < 100_000
    assert 70_000 < parameters(build("vgg8", (1, 8, 8))) < 110_000


@pytest.mark.parametrize("name", ["resnet8", "vgg8"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
def test_small_networks_take_small_images(name, shape):
    assert build(name, shape)(torch.zeros(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet8", "vgg8", "resnet18", "squeezenet1_1", "timm.resnet18"])
def test_the_seed_alone_decides_the_weights(name):
    first, again, other = (build(name, (1, 64, 64), seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", ["resnet18", "timm.resnet18"])
def test_small_images_get_the_small_stem(name):
    small, large = build(name).conv1, build(name, (3, 224, 224)).conv1
    assert (small.kernel_size, small.stride) == ((3, 3), (1, 1)) and isinstance(build(name).maxpool, torch.nn.Identity)
    assert (large.kernel_size, large.stride) == ((7, 7), (2, 2))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "alexnet", "timm.mobilenetv3_small_050"])
def test_grey_images_get_a_stem_of_one_channel(name):
    model = build(name, (1, 224, 224))
    stem = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    colour = next(m for m in build(name, (3, 224, 224)).modules() if isinstance(m, torch.nn.Conv2d))
    assert stem.in_channels == 1
    # The outputs of both stems vary alike: weights of a third of the inputs are larger by the square root of three.
    if not name.startswith("timm."):
        ratio = stem.weight.detach().std() / colour.weight.detach().std()
        assert ratio.item() == pytest.approx(3**0.5, rel=0.15)


FAMILIES = [
    ("timm.convnext_atto", 32),
    ("timm.regnety_002", 32),
    ("mobilenet_v2", 32),
    ("timm.mobilenetv3_small_050", 32),
    ("vgg11_bn", 32),
    ("timm.densenet121", 32),
    ("timm.vgg11", 32),
    ("timm.vit_tiny_patch16_224", 32),
    ("timm.xcit_nano_12_p16_224", 32),
    ("timm.efficientnet_lite0", 32),
    ("shufflenet_v2_x0_5", 32),
    ("timm.resnext26ts", 32),
    ("timm.ghostnet_050", 32),
    ("timm.mixer_s32_224", 32),
    ("squeezenet1_1", 32),
    ("googlenet", 32),
]


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_any_family_is_built_trained_saved_and_loaded(tmp_path, name, size):
    shape = (1, size, size)
    model = build(name, shape)
    assert model.training
    model(torch.randn(2, *shape)).sum().backward()
    saved.save(tmp_path, model, name=name, num_classes=10, input_shape=shape)
    x = torch.randn(2, *shape)
    assert torch.equal(saved.load(tmp_path)(x), model.eval()(x))


@pytest.mark.parametrize(("name", "size"), FAMILIES)
def test_any_family_is_searched_and_pruned_exactly(name, size):
    x = torch.randn(4, 1, size, size)
    model = build(name, x.shape[1:])
    search = EDropout(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    search.loss(x, torch.arange(4)).backward()
    search.step(optimizer)
    smaller, masked = search.prune().eval(), copy.deepcopy(model).eval()
    mask_(masked, search.units.kept(search.best_state))
    assert parameters(smaller) < parameters(model)
    expected = masked(x)
    assert (smaller(x) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("resnet19", "resnet18"),
        ("resnet", "resnet8"),
        ("vgg9", "vgg8"),
        ("convnext_atom", "convnext_atto"),
        ("q", "names"),
    ],
)
def test_an_unknown_name_is_a_sentence_with_its_neighbours(name, near):
    with pytest.raises(ModelError, match=near) as caught:
        build(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size"),
    [("alexnet", 32), ("vgg8", 4), ("squeezenet1_1", 8), ("timm.xcit_nano_12_p16_224", 8)],
)
def test_images_that_are_too_small_are_a_sentence(name, size):
    with pytest.raises(ModelError, match=f"{name} cannot .* 3 x {size} x {size}") as caught:
        build(name, (3, size, size))
    assert "\n" not in str(caught.value)


def test_names_are_checked_from_the_command_line(monkeypatch, capsys):
    names = ["harness.networks.build", "resnet18", "timm.resnet18", "resnet50.a1_in1k"]
    monkeypatch.setattr(sys, "argv", names)
    assert main() == 0
    monkeypatch.setattr(sys, "argv", [*names, "resnot18"])
    assert main() == 1 and "resnot18" in capsys.readouterr().err.splitlines()[-1]


def pruned(name, shape):
    model = build(name, shape)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.bias)
    kept = {
        layer: torch.arange(module.out_channels) % 3 > 0
        for layer, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d)
    }
    return prune(model, kept, torch.zeros(1, *shape)).eval()


@pytest.mark.parametrize(("name", "shape"), [("resnet8", (1, 8, 8)), ("vgg8", (1, 8, 8)), ("resnet18", (3, 32, 32))])
def test_a_pruned_network_is_loaded_as_it_was_saved(tmp_path, name, shape):
    model, x = pruned(name, shape), torch.randn(2, *shape)
    saved.save(tmp_path, model, name=name, num_classes=10, input_shape=shape)
    before = torch.get_rng_state()
    loaded = saved.load(tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(loaded(x), model(x)) and parameters(loaded) == parameters(model) < parameters(build(name, shape))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def damage(folder, fault):
    weights, description = folder / "model.safetensors", folder / "model.json"
    match fault:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-10])
        case "no weights":
            weights.unlink()
        case "no description":
            description.unlink()
        case "cut description":
            description.write_text(description.read_text()[:-10])
        case "other network":
            description.write_text(json.dumps({**json.loads(description.read_text()), "architecture": "resnet8"}))


@pytest.mark.parametrize("fault", ["cut", "no weights", "no description", "cut description", "other network"])
def test_a_damaged_network_is_one_sentence(tmp_path, fault):
    saved.save(tmp_path, pruned("vgg8", (1, 8, 8)), name="vgg8", num_classes=10, input_shape=(1, 8, 8))
    damage(tmp_path, fault)
    with pytest.raises(ModelError, match=r"model\.(json|safetensors)") as caught:
        saved.load(tmp_path)
    assert "\n" not in str(caught.value)
