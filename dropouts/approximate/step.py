"""An optimiser's step on parts of parameters: what an iteration dropped stays, and so does its optimiser state.

edropout has a step of this kind for parts that lie scattered, which it gathers. Here most parts are views: the
optimiser works on the parameter in place, and there is nothing to gather or to write back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from dropouts.approximate.iteration import Leaf

NOT_ELEMENTWISE = ("LBFGS", "Adafactor", "Muon", "Rprop", "SparseAdam")


def check_optimizer(optimizer: Optimizer) -> None:
    """Raises ValueError if a step on parts would not be this optimiser's step."""
    name = next((kind.__name__ for kind in type(optimizer).__mro__ if kind.__name__ in NOT_ELEMENTWISE), None)
    if name is not None:
        raise ValueError(
            f"{name} cannot step on parts of matrices that change from step to step: use an optimiser that treats each "
            "weight by itself, as SGD or Adam do, or lazy=False"
        )


def lazy_step(optimizer: Optimizer, leaves: Mapping[Tensor, Leaf]) -> None:
    """One step of the optimiser that sees, of each parameter with a leaf, the leaf's part only.

    A parameter with a gradient of its own besides, as a penalty on all weights leaves, has both and moves as a whole.
    """
    check_optimizer(optimizer)
    leaves = {parameter: leaf for parameter, leaf in leaves.items() if not _joined(parameter, leaf)}
    stand_ins: list[tuple[dict, int, nn.Parameter, nn.Parameter]] = []
    fused = [group.get("fused") for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        for position, parameter in enumerate(group["params"]):
            leaf = leaves.get(parameter)
            if leaf is None or leaf.value.grad is None:
                continue
            stand_in = nn.Parameter(leaf.cut.take(parameter.detach()))
            stand_in.grad = leaf.value.grad
            if parameter in optimizer.state:
                optimizer.state[stand_in] = {
                    key: leaf.cut.take(value) if _follows(value, parameter) else value
                    for key, value in optimizer.state[parameter].items()
                }
            group["params"][position] = stand_in
            stand_ins.append((group, position, parameter, stand_in))
            if group.get("fused") and not stand_in.is_contiguous():
                group["fused"] = False  # Fused kernels take memory to be dense, without a check.
    try:
        optimizer.step()
    finally:
        for group, kernel in zip(optimizer.param_groups, fused, strict=True):
            if "fused" in group:
                group["fused"] = kernel
        for group, position, parameter, stand_in in stand_ins:
            group["params"][position] = parameter
            _write_back(optimizer, parameter, stand_in, leaves[parameter])


def full_step(optimizer: Optimizer, leaves: Mapping[Tensor, Leaf]) -> None:
    """The optimiser's ordinary step: gradients of what was dropped are zeros, momentum and decay act on everything."""
    without = [parameter for parameter in leaves if parameter.grad is None]
    for parameter in without:
        if leaves[parameter].value.grad is not None:
            parameter.grad = torch.zeros_like(parameter)
    for parameter, leaf in leaves.items():
        _joined(parameter, leaf)
    try:
        optimizer.step()
    finally:
        for parameter in without:
            parameter.grad = None


def _joined(parameter: Tensor, leaf: Leaf) -> bool:
    """Adds a leaf's gradient to the parameter's own, if there is one."""
    if parameter.grad is None:
        return False
    if leaf.value.grad is not None:
        leaf.cut.put_(parameter.grad, leaf.cut.take(parameter.grad) + leaf.value.grad)
    return True


@torch.no_grad()
def _write_back(optimizer: Optimizer, parameter: nn.Parameter, stand_in: nn.Parameter, leaf: Leaf) -> None:
    leaf.cut.put_(parameter, stand_in)
    for key, value in optimizer.state.pop(stand_in, {}).items():
        state = optimizer.state[parameter]
        if not _follows(value, stand_in):
            state[key] = value
            continue
        if not _follows(state.get(key), parameter):
            state[key] = torch.zeros_like(parameter, dtype=value.dtype)
        leaf.cut.put_(state[key], value)


def _follows(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameter.shape
