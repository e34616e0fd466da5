"""Any network of torchvision or timm by its name, fitted to the images: their channels, their size, their classes."""

from __future__ import annotations

import torch
from torch import nn

from harness.networks import names

SMALL_IMAGE = 64
"""Up to this side in pixels, ResNets get the stem of the paper: 3x3, stride 1, no max-pool."""
RGB = 3


def build(name: str, *, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """A freshly initialised network of torchvision or, where it has none of that name, of timm.

    Args:
        name: torchvision's or timm's.
        num_classes: Outputs.
        input_shape: (channels, height, width) of an image.
    """
    channels, height, width = input_shape
    if names.library_of(name) == "torchvision":
        model = _torchvision(name, num_classes, height)
        if channels != RGB:
            _replace_input(model, channels)
    else:
        model = _timm(name.removeprefix(names.TIMM), num_classes, input_shape)
    if max(height, width) <= SMALL_IMAGE and _has_large_resnet_stem(model):
        _use_small_stem(model)
    return model


def require(name: str) -> None:
    """Raise ModelError, with names that are spelled alike, unless torchvision or timm has the network."""
    if name in names.torchvisions():
        return
    import timm

    if not timm.is_model(name.removeprefix(names.TIMM)):
        raise names.unknown(name, timm.list_models())


def _torchvision(name: str, num_classes: int, size: int) -> nn.Module:
    from torchvision import models

    options = {}
    if name in ("googlenet", "inception_v3"):
        # Their auxiliary classifiers would change what the network returns while it is trained.
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": size}
    return models.get_model(name, weights=None, num_classes=num_classes, **options)


def _timm(name: str, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    import timm

    channels, height, width = input_shape
    configuration = timm.get_pretrained_cfg(name)
    size = (height, width) if configuration is not None and configuration.fixed_input_size else None
    return timm.create_model(name, num_classes=num_classes, in_chans=channels, img_size=size)


def _replace_input(model: nn.Module, channels: int) -> None:
    """Have the first convolution take `channels` instead of three, with the same variance of its outputs."""
    name, old = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == RGB
    )
    new = nn.Conv2d(
        channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    with torch.no_grad():
        repeated = old.weight.repeat(1, -(-channels // RGB), 1, 1)[:, :channels]
        new.weight.copy_(repeated * (RGB / channels) ** 0.5)
        if old.bias is not None:
            new.bias.copy_(old.bias)
    model.set_submodule(name, new)


def _has_large_resnet_stem(model: nn.Module) -> bool:
    stem = getattr(model, "conv1", None)
    return isinstance(stem, nn.Conv2d) and stem.kernel_size == (7, 7) and hasattr(model, "maxpool")


def _use_small_stem(model: nn.Module) -> None:
    """The stem of He et al. 2016 for CIFAR, as in the authors' code: 3x3, stride 1, and no max-pool."""
    old = model.conv1
    model.conv1 = nn.Conv2d(old.in_channels, old.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
