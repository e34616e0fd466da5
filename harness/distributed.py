"""One cell trained by several processes: each takes its share of every batch, and together they make the same step.

`python -m harness.distributed PROCESSES ...` starts harness.cell with the remaining arguments in that many processes.
Everything outside the training loop is done alike by all of them; only the leader, rank 0, measures and writes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import signal
import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class DistributedError(RuntimeError):
    """Processes that cannot train together; the message is one sentence."""


def launched() -> bool:
    """True in a process that torchrun started."""
    return "LOCAL_RANK" in os.environ


def start(device: torch.device) -> None:
    """Join the processes that train this cell; nothing to do for a cell of one process."""
    if launched():
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def ranks() -> int:
    """Number of processes that train this cell."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def share(loader: Any) -> Any:
    """The loader of this process's part of each batch of `loader`."""
    return loader if ranks() == 1 else replace(loader, share=(rank(), ranks()))


def reseed(*parts: int) -> None:
    """Seed torch's global generators by `parts`, so that they need no checkpoint; nothing to do for one process.

    With the rank among the parts, the processes draw different dropout masks; without it, they go on alike.
    """
    if ranks() > 1:
        digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
        torch.manual_seed(int.from_bytes(digest[:6], "big"))


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


def any_of(flag: bool) -> bool:
    """Whether `flag` is true in some process."""
    if ranks() == 1:
        return flag
    flags = torch.tensor(float(flag))
    dist.all_reduce(flags)
    return bool(flags > 0)


def check_alike(tensors: Iterable[Tensor]) -> None:
    """Raise DistributedError unless all processes hold the same values."""
    if ranks() == 1:
        return
    sums = torch.stack([tensor.detach().double().sum().cpu() for tensor in tensors])
    everywhere = [torch.empty_like(sums) for _ in range(ranks())]
    dist.all_gather(everywhere, sums)
    if not all(torch.equal(sums, other) for other in everywhere):
        raise DistributedError(
            f"the {ranks()} processes hold different networks, because the method decides by its own part of a batch: "
            "set recipe key 'processes' to 1"
        )


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send us this signal when the process that started us is gone (Linux only)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)


def main() -> None:
    from torch.distributed.run import main as torchrun

    end_with_parent(signal.SIGTERM)
    processes, *arguments = sys.argv[1:]
    torchrun(["--standalone", "--nproc-per-node", processes, "-m", "harness.cell", *arguments])


if __name__ == "__main__":
    main()
