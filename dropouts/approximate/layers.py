"""Layers that compute what an iteration keeps, and nothing else; in evaluation mode they are torch's own.

Each takes over the parameters of the layer in whose place it stands, under their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.approximate.iteration import Iteration, Place
from dropouts.approximate.parts import cut, select, spread
from dropouts.approximate.patterns import Tiles


@dataclass(frozen=True)
class Visit:
    """One call of a dropout module: where it drops, and whether its neighbours give and take kept units only."""

    place: Place
    reads_part: bool
    gives_part: bool


class Site(nn.Module):
    """In the place of nn.Dropout: scales what is kept, (..., units or kept) -> (..., units or kept).

    Args:
        visits: The calls in one pass through the network, in their order; None where it is nn.Dropout as before.
        rate: For those calls.
    """

    def __init__(self, iteration: Iteration, visits: list[Visit | None], rate: float) -> None:
        super().__init__()
        self.iteration, self.visits, self.rate = iteration, visits, rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        visit = self.visits[self.iteration.calls[self] % len(self.visits)]
        self.iteration.calls[self] += 1
        if visit is None:
            return functional.dropout(x, self.rate)
        if isinstance(self.iteration.pattern, Tiles):  # They act on the weights of the layers behind.
            return x
        kept = self.iteration.kept(visit.place)
        x = (x if visit.reads_part else select(x, kept)) * visit.place.scale
        return x if visit.gives_part else spread(x, kept, x.new_zeros(*x.shape[:-1], visit.place.width))


class CutLinear(nn.Linear):
    """nn.Linear between two places: rows of the weight follow the units it gives, columns those it reads."""

    def __init__(self, layer: nn.Linear, iteration: Iteration, reads: Place | None, gives: Place | None) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.iteration, self.reads, self.gives = iteration, reads, gives

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        rows, columns = self.iteration.kept(self.gives), self.iteration.kept(self.reads)
        weight = self.iteration.part(self.weight, lambda: cut(self.weight.shape, rows, columns))
        if self.bias is None or rows is None:
            return functional.linear(x, weight, self.bias)
        return functional.linear(x, weight, self.iteration.part(self.bias, lambda: cut(self.bias.shape, rows)))


class CutEmbedding(nn.Embedding):
    """nn.Embedding before a place: columns of the weight follow the units it gives."""

    def __init__(self, layer: nn.Embedding, iteration: Iteration, gives: Place) -> None:
        super().__init__(layer.num_embeddings, layer.embedding_dim, layer.padding_idx, device="meta")
        self.weight, self.iteration, self.gives = layer.weight, iteration, gives

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.training:
            return super().forward(tokens)
        columns = self.iteration.kept(self.gives)
        weight = self.iteration.part(self.weight, lambda: cut(self.weight.shape, None, columns))
        return functional.embedding(tokens, weight, self.padding_idx)


class TiledLinear(nn.Linear):
    """nn.Linear of which only some tiles of the weight are used, multiplied so that their mean is the whole weight."""

    def __init__(self, layer: nn.Linear, iteration: Iteration, place: Place) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.iteration, self.place = iteration, place

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y = tiled_product(x, self.weight, self.iteration, self.place)
        return y if self.bias is None else y + self.bias


def tiled_product(x: Tensor, weight: Tensor, iteration: Iteration, place: Place) -> Tensor:
    """Product with the kept tiles of a weight, scaled: (..., columns) -> (..., rows); one product for each group."""
    assert isinstance(iteration.pattern, Tiles)
    tiling = iteration.pattern.tiling(iteration.choice(place), *weight.shape)
    parts = iteration.part(weight, lambda: tiling.entries).split(tiling.part_sizes)
    inputs = Reorder.apply(x * place.scale, tiling.columns, tiling.columns_back).split(tiling.input_sizes, -1)
    outputs = [  # Inputs that no group reads come last; there is no part for them.
        functional.linear(read, part.view(-1, read.shape[-1])) for read, part in zip(inputs, parts, strict=False)
    ]
    return Reorder.apply(torch.cat(outputs, -1), tiling.rows_back, tiling.rows)


class Reorder(torch.autograd.Function):
    """Features in another order; the backward pass is a selection too, which is faster than adding up at an index."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.back = back.to(x.device)
        return x.index_select(-1, order.to(x.device))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad.index_select(-1, ctx.back), None, None
