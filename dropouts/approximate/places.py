"""Reads where a network drops units, which layer gives them and which layers read them, by torch.fx."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

ZERO_STAYS = (nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish,
              nn.Tanh, nn.Hardswish, nn.Softsign, nn.Tanhshrink)  # fmt: skip
OF_EACH_VALUE = (*ZERO_STAYS, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.LogSigmoid)
ZERO_STAYS_CALLS: set[Callable | str] = {
    "relu", "tanh", "contiguous", torch.relu, torch.tanh, functional.relu, functional.relu6, functional.leaky_relu,
    functional.elu, functional.selu, functional.gelu, functional.silu, functional.mish, functional.tanh,
    functional.hardswish,
}  # fmt: skip
OF_EACH_VALUE_CALLS = {*ZERO_STAYS_CALLS, "sigmoid", torch.sigmoid, functional.sigmoid, functional.softplus}


@dataclass
class Found:
    """A call of a dropout module.

    Attributes:
        name: Of the module; several calls may have the same.
        rate: The module's own.
        width: Number of units; 0 if neither a layer that gives them nor one that reads them is known.
        giver: Name of the linear layer, embedding or LSTM whose units they are, if nothing else reads them.
        readers: Names of the linear layers and LSTMs that read them; empty if something else does too.
    """

    name: str
    rate: float
    width: int
    giver: str | None = None
    readers: list[str] = field(default_factory=list)


def find(network: nn.Module) -> list[Found]:
    """The calls of nn.Dropout in the order of a pass.

    Raises:
        ValueError: torch.fx cannot follow the network, or there is no such place.
    """
    try:
        graph = fx.Tracer().trace(network)
    except Exception as error:
        raise ValueError(f"torch.fx cannot follow {type(network).__name__}, to see what drops what: {error}") from error
    modules = dict(network.named_modules())
    nodes: list[Any] = list(graph.nodes)
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    found = []
    for node in nodes:
        if node.op != "call_module" or type(modules[node.target]) is not nn.Dropout:
            continue
        giver = _giver(node, modules, calls)
        readers = _readers(node, modules, calls)
        widths = {_width(modules[name]) for name in readers} | ({_given(modules[giver])} if giver else set())
        rate = modules[node.target].p
        found.append(Found(node.target, rate, widths.pop(), giver, readers) if len(widths) == 1
                     else Found(node.target, rate, 0))  # fmt: skip
    if not any(call.width for call in found) and not any(inner_rate(module) for module in modules.values()):
        raise ValueError(
            f"{type(network).__name__} has no place for approximate dropout: it needs an nn.Dropout next to an "
            "nn.Linear, nn.Embedding or nn.LSTM, or an nn.LSTM with dropout"
        )
    return found


def inner_rate(module: nn.Module) -> float:
    """Rate of the dropout between the layers of an LSTM, 0 if there is none."""
    if isinstance(module, nn.LSTM) and _usable(module, nn.LSTM) and module.num_layers > 1:
        return module.dropout
    return 0.0


def _giver(node: fx.Node, modules: dict[str, nn.Module], calls: Counter) -> str | None:
    """The layer whose units arrive at a node through functions of each value, if they go nowhere else."""
    source: Any = node.args[0]
    while isinstance(source, fx.Node) and len(source.users) == 1:
        if _passes(source, modules, OF_EACH_VALUE, OF_EACH_VALUE_CALLS):
            source = source.args[0]
            continue
        if source.op == "call_function" and source.target is operator.getitem and source.args[1] == 0:
            lstm: Any = source.args[0]
            return lstm.target if _is_layer(lstm, modules, calls, (nn.LSTM,)) else None
        found: Any = source.target if _is_layer(source, modules, calls, (nn.Linear, nn.Embedding)) else None
        return found
    return None


def _readers(node: fx.Node, modules: dict[str, nn.Module], calls: Counter) -> list[str]:
    """The layers that read a node, if only such do."""
    readers: list[str] = []
    user: Any
    for user in node.users:
        if _passes(user, modules, ZERO_STAYS, ZERO_STAYS_CALLS):
            behind = _readers(user, modules, calls)
            if not behind:
                return []
            readers += behind
        elif _is_layer(user, modules, calls, (nn.Linear, nn.LSTM)) and user.args[:1] == (node,):
            readers.append(user.target)
        else:
            return []
    return readers


def _passes(node: Any, modules: dict[str, nn.Module], kinds: tuple, targets: set) -> bool:
    if node.op == "call_module":
        return type(modules[node.target]) in kinds
    return node.op in ("call_function", "call_method") and node.target in targets


def _is_layer(node: Any, modules: dict[str, nn.Module], calls: Counter, kinds: tuple) -> bool:
    """Whether a node calls a layer of these kinds that is called once only."""
    return node.op == "call_module" and calls[node.target] == 1 and any(_usable(modules[node.target], k) for k in kinds)


def _usable(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether it is such a layer, without anything that acts on its whole weight."""
    if type(module) is not kind or module._forward_pre_hooks or module._forward_hooks:
        return False
    if isinstance(module, nn.Embedding):
        return module.max_norm is None and not module.sparse and not module.scale_grad_by_freq
    return not isinstance(module, nn.LSTM) or not (module.bidirectional or module.proj_size)


def _width(reader: Any) -> int:
    return reader.input_size if isinstance(reader, nn.LSTM) else reader.in_features


def _given(giver: Any) -> int:
    if isinstance(giver, nn.LSTM):
        return giver.hidden_size
    return giver.embedding_dim if isinstance(giver, nn.Embedding) else giver.out_features
