"""Networks whose layers get narrower while they are trained: weights and the optimiser's state are cut together."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

History = list[tuple[str, bool, list[int]]]
"""What Torch-Pruning removed, in order: layer, whether filters (or else inputs), their numbers."""


def left_of(network: nn.Module, history: History, example: Tensor) -> dict[str, Tensor]:
    """What a pruning history leaves of every floating-point parameter and buffer.

    Found on a copy that holds the numbers of its entries, so that whatever the library cuts, slices or concatenates
    says itself where it was.

    Args:
        network: As it was when the history was made; it is not changed.
        history: What is removed.
        example: One input.

    Returns:
        name -> flat indices into the tensor as it is now, in the shape that it gets.
    """
    numbered = copy.deepcopy(network).eval()
    graph = torch_pruning.DependencyGraph().build_dependency(numbered, example_inputs=example, verbose=False)
    for name, tensor in list(_floating(numbered)):
        numbers = torch.arange(tensor.numel(), dtype=torch.float64, device=tensor.device).view(tensor.shape)
        _put(numbered, name, nn.Parameter(numbers) if isinstance(tensor, nn.Parameter) else numbers)
    graph.load_pruning_history(history)
    return {name: tensor.detach().long() for name, tensor in _floating(numbered)}


@torch.no_grad()
def cut_(network: nn.Module, left: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Keep what is left of the network and of the optimiser's state, in place.

    Parameters become new objects, which take the old ones' places in the optimiser; an entry of its state that has its
    parameter's shape, such as a momentum, follows the weights, and so do gradients.

    Args:
        network: Cut to what is left.
        left: What `left_of` gave.
        optimizer: It steps over the network's parameters.
    """
    changed: dict[Tensor, nn.Parameter] = {}
    for name, tensor in list(_floating(network)):
        index = left[name]
        if tensor.shape == index.shape:
            continue
        if not isinstance(tensor, nn.Parameter):
            _put(network, name, _take(tensor, index))
            continue
        new = nn.Parameter(_take(tensor, index), requires_grad=tensor.requires_grad)
        new.grad = None if tensor.grad is None else _take(tensor.grad, index)
        _put(network, name, new)
        changed[tensor] = new
        if tensor in optimizer.state:
            optimizer.state[new] = {
                key: _take(value, index) if isinstance(value, Tensor) and value.shape == tensor.shape else value
                for key, value in optimizer.state.pop(tensor).items()
            }
    for group in optimizer.param_groups:
        group["params"] = [changed.get(parameter, parameter) for parameter in group["params"]]
    _set_widths(network)


@torch.no_grad()
def resize_(network: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give the network's floating-point tensors these shapes, filled with zeros where they change.

    Raises:
        ValueError: a tensor of the network is not named or has another number of dimensions.
    """
    for name, tensor in list(_floating(network)):
        if len(shapes.get(name, ())) != tensor.dim():
            raise ValueError(
                f"the saved network has no '{name}' of {tensor.dim()} dimensions: it is another architecture"
            )
        if tensor.shape != tuple(shapes[name]):
            tensor.data = _as_before(tensor.data.new_zeros(tuple(shapes[name])))
    _set_widths(network)


def shapes_of(network: nn.Module) -> dict[str, list[int]]:
    """What `resize_` takes: name -> shape of every floating-point parameter and buffer."""
    return {name: list(tensor.shape) for name, tensor in _floating(network)}


def resizes_when_loaded(network: nn.Module) -> Any:
    """Have `load_state_dict` give the network the widths of what it loads; returns the hook's handle."""

    def resize(module: nn.Module, state: Mapping[str, Any], *_: Any) -> None:
        resize_(module, {name: value.shape for name, value in state.items()})

    return network.register_load_state_dict_pre_hook(resize)


def _floating(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from ((name, buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point())


def _put(network: nn.Module, name: str, tensor: Tensor) -> None:
    owner, _, own = name.rpartition(".")
    setattr(network.get_submodule(owner), own, tensor)


def _take(tensor: Tensor, index: Tensor) -> Tensor:
    return _as_before(tensor.flatten()[index.flatten()].view(index.shape))


def _as_before(tensor: Tensor) -> Tensor:
    """In the layout that the suite gives to weights of convolutions."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor


def _set_widths(network: nn.Module) -> None:
    """Have each layer say the widths that its weights have."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.conv._ConvNd):
            depthwise = module.groups == module.in_channels > 1
            filters, channels = module.weight.shape[1::-1] if module.transposed else module.weight.shape[:2]
            module.groups = module.weight.shape[0] if depthwise else module.groups
            module.out_channels = filters * module.groups if module.transposed else filters
            module.in_channels = channels if module.transposed else channels * module.groups
        elif isinstance(module, nn.modules.batchnorm._NormBase) and module.weight is not None:
            module.num_features = len(module.weight)
        elif isinstance(module, nn.LayerNorm) and module.weight is not None:
            module.normalized_shape = tuple(module.weight.shape)
