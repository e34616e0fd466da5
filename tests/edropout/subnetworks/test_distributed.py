"""Two processes hold the same population, take the same decisions and move the same weights."""

from __future__ import annotations

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from searched_networks import disturb, small_network
from torch.nn.parallel import DistributedDataParallel

from edropout import EDropout, Target


def train(rank: int, store: str, folder: str) -> None:
    """Three steps on data of its own; saves what must be the same on all ranks."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # different initial weights, which DistributedDataParallel makes equal
    model = DistributedDataParallel(disturb(small_network()))
    search = EDropout(model, population_size=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    energies, norms = [], []
    for _ in range(3):
        loss = search.loss(torch.randn(6, 3, 8, 8), torch.randint(5, (6,)))
        optimizer.zero_grad()
        loss.backward()
        search.average_gradients()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1))
        search.step(optimizer)
        energies.append(search.energies.clone())
    with pytest.raises(ValueError, match="NaN"):  # on both, though one rank alone has seen it
        search.freeze()
        search.loss(torch.full((6, 3, 8, 8), torch.nan if rank == 0 else 1.0), torch.randint(5, (6,)))
    weights = [parameter.detach() for parameter in model.parameters()]
    path = follow_a_path(rank)
    torch.save((search.population, energies + norms, weights, loss.detach(), path), f"{folder}/rank{rank}.pt")
    dist.barrier()
    # The destructor of DistributedDataParallel can wait for gloo's thread, which waits for the interpreter.
    os._exit(0)


def follow_a_path(rank: int) -> list[torch.Tensor]:
    """A descent by energies with curvature on batches of another size on each rank: its state, what it has learned."""
    torch.manual_seed(0)
    model = disturb(small_network())
    search = EDropout(model, target=Target(0.7, warm_up=3, steps=2, stages=2, by="curvature"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(rank + 1)
    for _ in range(4):
        optimizer.zero_grad()
        search.loss(torch.randn(4 + 4 * rank, 3, 8, 8), torch.randint(5, (4 + 4 * rank,))).backward()
        search.step(optimizer)
    return [search.best_state, search.moments.seen, search.moments.sums]


@pytest.mark.slow
def test_ranks_agree_on_states_energies_and_weights(tmp_path) -> None:
    multiprocessing.spawn(train, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one[2], other[2], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one[4], other[4], strict=True)) and not one[4][0].all()
    # Each example of the rank with four weighs 1/8 and of the one with eight 1/16: B = 1 / (4/8^2 + 8/16^2) = 32/3.
    assert one[4][1][1] / one[4][1][0] == pytest.approx(32 / 3)
    assert one[3] != other[3]  # each rank did train on data of its own
