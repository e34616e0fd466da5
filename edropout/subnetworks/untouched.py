"""Contexts in which a network's own code may run without leaving a trace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Puts every module into train or eval mode and restores each module's own mode afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Takes back what changes attributes of modules, dictionaries among them, their mode and buffers."""
    contents = [(buffer, buffer._version, buffer.clone()) for buffer in model.buffers()]
    own = [vars(part) for part in model.modules()]
    tables = [*own, *(value for entries in own for value in entries.values() if type(value) is dict)]
    saved = [(table, dict(table)) for table in tables]
    try:
        yield
    finally:
        for table, entries in saved:
            table.clear()
            table.update(entries)
        with torch.no_grad():
            for buffer, version, content in contents:
                if buffer._version != version:
                    buffer.copy_(content)


@contextmanager
def no_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Takes back what advances the generators of torch and Python.

    Raises:
        RandomNumbersError: Numbers were drawn.
    """
    python, devices = random.getstate(), [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        before = _states(devices)
        try:
            yield
            drawn = random.getstate() != python or not all(map(torch.equal, before, _states(devices)))
        finally:
            random.setstate(python)
    if drawn:
        raise RandomNumbersError("it draws random numbers")


@contextmanager
def the_same_random_numbers(device: torch.device | None = None) -> Iterator[None]:
    """Gives code that runs in this context the same random numbers each time, and takes back that it drew them."""
    python, devices = random.getstate(), [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python)


class RandomNumbersError(Exception):
    """Code that must always do the same has drawn random numbers."""


def _states(devices: list[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
