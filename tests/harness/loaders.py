"""A tiny in-memory dataset with the loader's interface, for tests of the loop and of methods."""

import torch


class Loader:
    """Two noisy classes told apart by the mean of their pixels; the order depends on the epoch alone."""

    def __init__(self, examples=40, batch_size=8, shape=(1, 8, 8), classes=2, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.y = torch.arange(examples) % classes
        noise = torch.randn(examples, *shape, generator=generator)
        self.x = noise + self.y.float()[:, None, None, None]
        self.batch_size = batch_size
        self.drawn = 0  # Batches that were handed out.

    def __len__(self):
        return -(-len(self.y) // self.batch_size)

    def epoch(self, index, start=0):
        order = torch.randperm(len(self.y), generator=torch.Generator().manual_seed(index))
        for batch in order.split(self.batch_size)[start:]:
            self.drawn += 1
            yield self.x[batch], self.y[batch]

    def __iter__(self):
        yield self.x, self.y
