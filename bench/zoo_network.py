"""One network of the zoo: is what is searched exact, and what does Torch-Pruning make of it?

Half the units are dropped at random, in float64. The masked network, by its own code, is what the others are compared
with: outputs of the pruned network in both modes, and in train mode outputs and gradients of the search.
"""

from __future__ import annotations

import copy
import time
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from baselines.depgraph import library
from edropout import EDropout, mask_
from edropout.energy import squared_error
from edropout.subnetworks.graph import tensors

CLASSES, BATCH = 10, 2
SIDES = (64, 128)  # pixels that are tried before the size the network was made for
TORCHVISION = (224, 299)  # which torchvision does not tell
ROUNDING = 1e-9  # of float64, through a hundred layers
NOTHING = 1e-5  # of the largest gradient: those of keys' biases are zero but for rounding


def network(name: str) -> nn.Module:
    """A network with random weights and nothing that draws random numbers, all of whose parameters count.

    Args:
        name: Of timm, with whole-number options as in "beit_base_patch16_224(depth=2)", or "torchvision/" and its name.
    """
    torch.manual_seed(0)
    own, _, settings = name.removesuffix(")").partition("(")
    options = {key: int(value) for key, _, value in (entry.partition("=") for entry in settings.split(",") if entry)}
    if own.startswith("torchvision/"):
        model = torchvision.models.get_model(own.partition("/")[2], weights=None, num_classes=CLASSES, **options)
    else:
        model = timm.create_model(own, num_classes=CLASSES, **options)
    model = model.double()
    for module in model.modules():
        for rate in ("p", "drop_prob", "drop_rate", "dropout"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
        if isinstance(module, _BatchNorm):  # of a constant channel, it would multiply rounding errors by three hundred
            module.eps = 0.1
    with torch.no_grad():
        for parameter in model.parameters():
            # Scales of one and zero would hide what goes wrong behind them.
            if bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def batch(model: nn.Module) -> Tensor:
    """A batch of the smallest size that the network takes, on which its running statistics are set."""
    own = getattr(model, "default_cfg", {}).get("input_size")
    channels = 3 if own is None else own[0]
    for side in (*SIDES, *(TORCHVISION if own is None else own[1:2])):
        x = torch.randn(BATCH, channels, side, side, dtype=torch.float64)
        try:
            with torch.no_grad():
                model.eval()(x), model.train()(x)
            return x
        except Exception:  # whatever a network says to images that are too small
            continue
    raise ValueError("it runs on none of the sizes that were tried")


def examined(name: str) -> dict[str, Any]:
    """The row of a network, without its peers'."""
    model = network(name)
    x = batch(model)
    row: dict[str, Any] = {"parameters": _count(model), "side": x.shape[-1]}
    start = time.process_time()
    try:
        # The energy is asked for by nobody, as the first state is final.
        search = EDropout(model, energy=squared_error, example=x[:2])
        search.freeze()
        smaller = search.prune()
    except ValueError as error:
        return {**row, "result": "refused", "sentence": str(error), "seconds": time.process_time() - start}
    row |= {"seconds": time.process_time() - start, "kept": search.kept_ratio().physical}
    masked = copy.deepcopy(model)
    mask_(masked, search.units.kept(search.best_state), x)
    with torch.no_grad():
        errors = {"output in eval mode": _difference(smaller.eval()(x), masked.eval()(x))}
    search.loss(x, x, criterion=_weighted_sum).backward()
    _weighted_sum(masked.train()(x), x).backward()
    with torch.no_grad():
        errors["output in train mode"] = _difference(smaller.train()(x), masked(x))
    errors |= {f"gradient of {name}": value for name, value in _gradient_differences(model, masked).items()}
    place, worst = max(errors.items(), key=lambda entry: entry[1])
    right = worst < ROUNDING
    return {**row, "result": "exact" if right else "wrong", "error": worst, "sentence": "" if right else place}


def _weighted_sum(outputs: Any, _: Any) -> Tensor:
    return sum((v * torch.arange(v.numel()).cos().view(v.shape)).sum() for v in tensors(outputs))


def _difference(found: Any, own: Any) -> float:
    pairs = zip(tensors(found), tensors(own), strict=True)
    return max(float((one - other).norm() / other.norm()) for one, other in pairs)


def _gradient_differences(searched: nn.Module, masked: nn.Module) -> dict[str, float]:
    """Relative differences of gradients where something is left of a parameter; what was dropped has none."""
    own = dict(masked.named_parameters())
    floor = NOTHING * max(float(parameter.grad.norm()) for parameter in own.values() if parameter.grad is not None)
    return {name: _gradient_difference(found, own[name], floor) for name, found in searched.named_parameters()}


def _gradient_difference(searched: nn.Parameter, masked: nn.Parameter, floor: float) -> float:
    found, own = (torch.zeros_like(p) if p.grad is None else p.grad for p in (searched, masked))
    left = (masked != 0) | (found != 0)
    return float((found - own)[left].norm()) / max(float(own.norm()), floor)


def peer(name: str, *, heads: bool) -> float:
    """Share of the parameters that Torch-Pruning leaves when half the channels of every layer go.

    Raises:
        ValueError: It cannot, or what is left does not run.
    """
    model = network(name).float().eval()
    x = batch(model.double()).float()[:2]
    model, before = model.float().eval(), _count(model)
    outputs = [value.shape for value in tensors(model(x))]
    options = {"num_heads": _heads(model)} if heads else {}
    library.make(model, x, order="group_norm", pruning_ratio=0.5, **options).step()
    if [value.shape for value in tensors(model(x))] != outputs:
        raise ValueError("its outputs have another shape")
    return _count(model) / before


def _heads(model: nn.Module) -> dict[nn.Module, int]:
    """The linear layers that make queries, keys and values, with the numbers of heads that their owners tell."""
    owners = [module for module in model.modules() if isinstance(getattr(module, "num_heads", None), int)]
    return {
        layer: owner.num_heads
        for owner in owners
        for name, layer in owner.named_children()
        if isinstance(layer, nn.Linear) and name in ("qkv", "q", "k", "v", "kv", "to_qkv", "q_proj", "k_proj", "v_proj")
    }


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
