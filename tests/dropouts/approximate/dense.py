"""The same networks computed whole, with masks: what cut layers have to agree with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks, Tiles, least_variance
from dropouts.approximate.iteration import Place
from dropouts.approximate.patterns import Pattern

WIDTH, TOKENS, TIMES, BATCH = 37, 23, 5, 4
PATTERNS = [Blocks(), Rows(), SomeBlocks(8), Tiles(size=8), Tiles(size=8, staggered=False)]


def name_of(pattern: Pattern | bool) -> str:
    """A short name for the test."""
    if isinstance(pattern, bool):
        return str(pattern)
    distribution = getattr(pattern, "distribution", least_variance)
    how = "" if distribution is least_variance else " of other distribution"
    return type(pattern).__name__ + how + ("" if getattr(pattern, "staggered", True) else " as published")


def mlp(rate: float = 0.6, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    layers = [nn.Linear(11, WIDTH), nn.Tanh(), nn.Dropout(rate), nn.Linear(WIDTH, 29), nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(*layers, nn.Linear(29, 7)).to(dtype)


class LanguageModel(nn.Module):
    """Embedding, two LSTM layers, words; one dropout module serves both its places, as in many a program."""

    def __init__(self, rate: float = 0.6, *, tied: bool = False, batch_first: bool = False) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(TOKENS, WIDTH), nn.Dropout(rate)
        self.lstm = nn.LSTM(WIDTH, WIDTH, 2, dropout=rate, batch_first=batch_first)
        self.words = nn.Linear(WIDTH, TOKENS)
        if tied:
            self.words.weight = self.embedding.weight
        self.double()

    def forward(self, tokens: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple]:
        y, state = self.lstm(self.dropout(self.embedding(tokens)), state)
        return self.words(self.dropout(y)), state


def tokens() -> Tensor:
    return torch.randint(TOKENS, (TIMES, BATCH), generator=torch.Generator().manual_seed(1))


def state() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    hidden, cell = torch.randn(2, 2, BATCH, WIDTH, dtype=torch.float64, generator=generator).tanh()
    return hidden, cell


def mask(approximate: ApproximateDropout, place: Place) -> Tensor:
    """Ones where a place keeps a unit."""
    kept = torch.zeros(place.width, dtype=torch.float64)
    kept[approximate.iteration.kept(place).units] = 1
    return kept


def tile_mask(approximate: ApproximateDropout, place: Place, weight: Tensor) -> Tensor:
    """Ones where a tile is kept, from the definition."""
    pattern, choice = approximate.pattern, approximate.iteration.choice(place)
    row = torch.arange(weight.shape[0])[:, None] // pattern.size
    column = torch.arange(weight.shape[1]) // pattern.size
    number = row + column if pattern.staggered else row * (int(column[-1]) + 1) + column
    return (number % choice.period == choice.offset).to(torch.float64)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, approximate: ApproximateDropout, place: Place) -> Tensor:
    """A layer behind a place, whole."""
    if isinstance(approximate.pattern, Tiles):
        weight = weight * tile_mask(approximate, place, weight)
    else:
        x = x * mask(approximate, place)
    y = x * place.scale @ weight.t()
    return y if bias is None else y + bias


def mlp_outputs(approximate: ApproximateDropout, p: dict[str, Tensor], x: Tensor) -> Tensor:
    first, second = approximate.places
    x = (x @ p["0.weight"].t() + p["0.bias"]).tanh()
    x = linear(x, p["3.weight"], p["3.bias"], approximate, first).relu()
    return linear(x, p["6.weight"], p["6.bias"], approximate, second)


def language_outputs(
    approximate: ApproximateDropout, p: dict[str, Tensor], tokens: Tensor, state: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    before, behind, between = approximate.places
    x = p["embedding.weight"][tokens]
    last = []
    for number, (reads, gives) in enumerate([(before, between), (between, behind)]):
        name = f"lstm.{{}}_l{number}"
        h, c, outputs = state[0][number], state[1][number], []
        awake = mask(approximate, gives) if approximate.recurrent else torch.ones(WIDTH, dtype=torch.float64)
        scale = gives.scale if approximate.recurrent else 1.0
        for t in range(len(x)):
            gates = linear(x[t], p[name.format("weight_ih")], p[name.format("bias_ih")], approximate, reads)
            gates = gates + h * awake * scale @ p[name.format("weight_hh")].t() + p[name.format("bias_hh")]
            i, f, g, o = gates.chunk(4, -1)
            c = torch.where(awake > 0, f.sigmoid() * c + i.sigmoid() * g.tanh(), c)
            h = torch.where(awake > 0, o.sigmoid() * c.tanh(), h)
            outputs.append(h)
        x = torch.stack(outputs)
        last.append((h, c))
    hidden, cell = zip(*last, strict=True)
    return linear(x, p["words.weight"], p["words.bias"], approximate, behind), (torch.stack(hidden), torch.stack(cell))
