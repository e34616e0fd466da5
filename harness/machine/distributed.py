"""One cell trained by several processes: each takes its share of every batch, and together they make the same step.

What lies outside the training loop all of them do alike; only the leader, rank 0, measures the result and writes files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class DistributedError(ValueError):
    """Processes that cannot train together; the message is one sentence."""


def launched() -> bool:
    """True in a process that torchrun started."""
    return dist.is_torchelastic_launched()


def start(device: torch.device) -> None:
    """Join the processes that train this cell; nothing to do for a cell of one process."""
    if launched():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def ranks() -> int:
    """Number of processes that train this cell."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return int(os.environ["RANK"]) if launched() else 0


def leads() -> bool:
    """True in the one process that measures and writes."""
    return rank() == 0


def report(error: str, path: Path) -> None:
    """Leave the sentence of the process that fails first in `path`; the others then only see that it is gone."""
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="utf-8") as file:
        file.write(error)


def share(loader: Any) -> Any:
    """The loader of this process's part of each batch of `loader`."""
    return loader if ranks() == 1 else replace(loader, share=(rank(), ranks()))


def check_batches(loader: Any) -> None:
    """Raise DistributedError if some batch of a training loader has fewer than two examples for each process."""
    rest = loader.num_examples % loader.batch_size
    smallest = rest if rest > 1 else loader.batch_size
    if ranks() > 1 and smallest < 2 * ranks():
        raise DistributedError(
            f"a batch of {smallest} examples is too small for {ranks()} processes: lower recipe key 'processes' or "
            "choose another 'batch_size'"
        )


def reseed(loader: Any, epoch: int, batch: int | None = None) -> None:
    """Seed torch's global generators, so that each process draws its own dropout masks and needs no checkpoint for it.

    Args:
        loader: The training loader, whose seed counts.
        epoch: Number of the epoch.
        batch: Number of the batch; None after an epoch, where all processes go on alike.
    """
    if ranks() > 1:
        name = f"{loader.seed}/{epoch}" if batch is None else f"{loader.seed}/{epoch}/{batch}/{rank()}"
        torch.manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big"))


@torch.no_grad()
def average_(tensors: Iterable[Tensor], *, examples: int) -> int | Tensor:
    """Replace tensors by their means over the processes, in one message.

    Args:
        tensors: On one device; the same ones in each process.
        examples: What this process's values are the mean of: their weight.

    Returns:
        The examples of all processes.
    """
    if ranks() == 1:
        return examples
    tensors = list(tensors)
    flat = torch.cat([*(tensor.flatten() for tensor in tensors), tensors[0].new_ones(1).flatten()]) * examples
    dist.all_reduce(flat)
    *means, _ = (flat / flat[-1]).split([*(tensor.numel() for tensor in tensors), 1])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))
    return flat[-1]


def mean_of(measured: Mapping[str, float]) -> Mapping[str, float]:
    """What `metrics.evaluate` gives for the examples of all processes together."""
    if ranks() == 1:
        return measured
    values = torch.tensor(list(measured.values()), dtype=torch.float64)
    examples = average_([values], examples=int(measured["examples"]))
    return {**dict(zip(measured, values.tolist(), strict=True)), "examples": int(examples)}


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in some process."""
    if ranks() == 1:
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags)
    return bool(flags > 0)


def check_alike(model: nn.Module) -> None:
    """Raise DistributedError unless all processes hold the same network."""
    if ranks() == 1:
        return
    sums = torch.stack([tensor.double().sum().cpu() for tensor in model.state_dict().values()])
    everywhere = [torch.empty_like(sums) for _ in range(ranks())]
    dist.all_gather(everywhere, sums)
    if not all(torch.equal(sums, other) for other in everywhere):
        raise DistributedError(
            f"the {ranks()} processes hold different networks, because the method decides by its own part of a batch: "
            "set recipe key 'processes' to 1"
        )
