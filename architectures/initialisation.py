"""How our architectures draw their first weights."""

from torch import nn


def he(model: nn.Module) -> nn.Module:
    """He initialisation of the convolutions (arXiv:1502.01852), as torchvision's ResNets have it."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return model
