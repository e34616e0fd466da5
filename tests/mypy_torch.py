"""A mypy plugin: what a network's module holds under a name is known to who wrote the network.

torch says that every attribute of an nn.Module that is not declared is a tensor or a module, which layers' own numbers
(`layer.width`) and buffers are not; without this each of their uses would need a cast.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.plugin import AttributeContext, Plugin
from mypy.types import AnyType, Type, TypeOfAny, UnionType, get_proper_type

MODULE = "torch.nn.modules.module.Module."


class Torch(Plugin):
    """Attributes that only `nn.Module.__getattr__` knows have any type."""

    def get_attribute_hook(self, fullname: str) -> Callable[[AttributeContext], Type] | None:
        return undeclared if fullname.startswith(MODULE) else None


def undeclared(context: AttributeContext) -> Type:
    found = context.default_attr_type
    return AnyType(TypeOfAny.explicit) if isinstance(get_proper_type(found), UnionType) else found


def plugin(version: str) -> type[Plugin]:
    return Torch
