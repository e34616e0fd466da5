"""Networks and small functions that the tests of the library share."""

from __future__ import annotations

import copy
import hashlib

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout import EDropout, mask_
from edropout.energy import energy
from edropout.subnetworks.units import Units

# name -> side of a small input that the architecture accepts
ARCHITECTURES = {
    "resnet18": 64,
    "resnet50": 64,
    "alexnet": 64,
    "squeezenet1_1": 64,
    "vgg11_bn": 64,
    "mobilenet_v2": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "efficientnet_b0": 64,
    "mobilenet_v3_small": 64,
    "densenet121": 64,
    "regnet_y_400mf": 64,
}


def small_network(width: int = 6) -> nn.Sequential:
    """A stem, one convolution with batch norm, one without, two linear layers."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(4, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, width, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(width * 16, 10),
        nn.SiLU(),
        nn.Linear(10, 5),
    )


def build(name: str) -> nn.Module:
    """A torchvision network of ten classes with random, non-zero batch-norm parameters and no random dropout."""
    options = {"num_classes": 10} | ({"dropout": 0.0} if name in ("alexnet", "squeezenet1_1", "vgg11_bn") else {})
    return disturb(torchvision.models.get_model(name, weights=None, **options))


def disturb(model: nn.Module) -> nn.Module:
    """Gives every batch norm random parameters and statistics, and makes random dropping inactive."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(generator=generator)
                module.running_mean.normal_(generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, (nn.Dropout, torchvision.ops.StochasticDepth)):
            module.p = 0.0
    return model


def random_kept(model: nn.Module, kept_ratio: float = 0.5, **options: bool) -> dict[str, Tensor]:
    """Random units with at least one in every layer."""
    units = Units(model, **options)
    state = torch.rand(units.num_units, generator=torch.Generator().manual_seed(2)) < kept_ratio
    return units.kept(units.repair_(state))


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    return ((one - other).abs().max() / other.abs().max()).item()


def assert_energies_of_masked_networks(search: EDropout, x: Tensor, y: Tensor) -> None:
    """Takes a step of a new search in float64 and compares the energy of each state with its masked network's."""
    start = copy.deepcopy(search.model)
    search.loss(x, y)
    for state, found in zip(search.population, search.energies, strict=True):
        masked = copy.deepcopy(start)
        mask_(masked, search.units.kept(state), x)
        assert abs(energy(masked(x), y) - found).item() < 1e-10


def batch(count: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator, dtype=dtype), torch.arange(count) % 5


def network() -> nn.Module:
    torch.manual_seed(0)
    return disturb(small_network(12))


def fingerprint(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()
