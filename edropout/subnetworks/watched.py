"""Tensors that call a function before anybody looks at their contents; shapes and gradients may be asked for."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from edropout.subnetworks.graph import tensors

_SEEN = "_edropout_seen"
_PROPERTIES = ("grad", "shape", "dtype", "device", "requires_grad", "is_leaf", "grad_fn", "ndim", "layout", "is_sparse")
# What neither reads nor changes contents.
_HARMLESS = {getattr(Tensor, name).__get__ for name in _PROPERTIES} | {
    Tensor.grad.__set__,  # type: ignore[attr-defined]
    Tensor.dim,
    Tensor.is_floating_point,
    Tensor.numel,
    Tensor.size,
}


def watch_(tensor: Tensor, seen: Callable[[], None]) -> None:
    """From now on the first look at the contents calls `seen` before; until then the tensor's class is another one.

    torch does the same where a lazy parameter becomes an ordinary one. Only what Python code does is seen, not who
    holds the same memory (see `has_aliases`).
    """
    if not isinstance(tensor, _Watched):
        tensor.__class__ = _watched_class(type(tensor))
    setattr(tensor, _SEEN, seen)


def unwatch_(tensor: Tensor) -> None:
    """Gives a tensor its own class back, without a call."""
    if isinstance(tensor, _Watched):
        delattr(tensor, _SEEN)
        tensor.__class__ = type(tensor).__mro__[2]


def is_watched(tensor: Tensor) -> bool:
    """True until somebody looks."""
    return isinstance(tensor, _Watched)


def has_aliases(tensor: Tensor) -> bool:
    """True if other tensors, or arrays, hold the memory of this one, or other processes do."""
    storage = tensor.untyped_storage()
    if storage.device.type == "cpu" and storage.is_shared():
        return True
    return torch._C._storage_Use_Count(storage._cdata) > 2  # the tensor's, and that of `storage` itself


class _Watched:
    """Comes before a tensor's own class."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in _HARMLESS:
            with torch._C.DisableTorchFunctionSubclass():
                return function(*args, **(kwargs or {}))
        for tensor in _watched((args, kwargs)):
            _look(tensor)
        return function(*args, **(kwargs or {}))

    def __deepcopy__(self, memo: dict) -> Any:
        return copy.deepcopy(_look(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _look(self).__reduce_ex__(protocol)


@torch._disable_dynamo  # as torch.compiler.disable, which imports the compiler where it stands
def _look(tensor: Any) -> Any:
    """Tells what waits for it that somebody is about to look at a tensor, which is an ordinary one from now on."""
    if isinstance(tensor, _Watched):
        seen = getattr(tensor, _SEEN)
        unwatch_(tensor)
        seen()
    return tensor


def _watched(values: Any) -> Iterator[Tensor]:
    return (tensor for tensor in tensors(values) if isinstance(tensor, _Watched))


@functools.cache
def _watched_class(own: type) -> type:
    return type(own)(own.__name__, (_Watched, own), {"__module__": own.__module__})
