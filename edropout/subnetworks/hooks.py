"""Hooks of an optimiser's step, for steps that are taken in another way than by the call that they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.optim import optimizer as torch_optimizer

from edropout.subnetworks.rehearsal import POST_HOOKS, PRE_HOOKS, nested

_EVERYWHERE: dict[str, Any] = {
    PRE_HOOKS: torch_optimizer._global_optimizer_pre_hooks,
    POST_HOOKS: torch_optimizer._global_optimizer_post_hooks,
}


def _hooked(optimizer: Any) -> list[Any]:
    return [owner for owner in nested(optimizer) if getattr(type(owner).step, "hooked", False)]


def hooks(optimizer: Any, name: str) -> list[tuple[Any, Callable]]:
    """The hooks of steps with their owners, in the order in which torch calls them."""
    common = _EVERYWHERE[name].values()
    own = [(owner, getattr(owner, name).values()) for owner in _hooked(optimizer)]
    chains = [(o, (*common, *found) if name == PRE_HOOKS else (*found, *common)) for o, found in own]
    return [(owner, hook) for owner, chain in chains for hook in chain]


@contextmanager
def without_hooks(optimizer: Any) -> Iterator[None]:
    """Takes the hooks of steps off, as they must not see parts of parameters."""
    tables = [getattr(owner, name) for owner in _hooked(optimizer) for name in (PRE_HOOKS, POST_HOOKS)]
    saved = [(table, dict(table)) for table in [*_EVERYWHERE.values(), *tables]]
    for table, _ in saved:
        table.clear()
    try:
        yield
    finally:
        for table, entries in saved:
            table.update(entries)
