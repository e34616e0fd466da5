"""LSTM language models by name: `lstm_200x2` has two layers of 200 units, `lstm_200x2_tied` one matrix for words."""

from __future__ import annotations

import re

from torch import Tensor, nn

NAMES = [r"lstm_[1-9]\d*x[1-9]\d*(_tied)?"]
SPREAD = 2.0
"""Weights start uniformly within sqrt(SPREAD / units) of zero: .1, .055 and .037 for 200, 650 and 1500 units, where
Zaremba et al. (arXiv:1409.2329) have .1, .05 and .04."""


def build(name: str, *, num_classes: int, input_shape: tuple[int, ...]) -> nn.Module:
    """Embedding, LSTM layers and decoder over words, with places for dropout as Zaremba et al. have it.

    Args:
        name: `lstm_<units>x<layers>`, `_tied` behind it for a decoder with the embedding's weights (Press & Wolf,
            arXiv:1608.05859).
        num_classes: Words of the vocabulary.
        input_shape: (time,).
    """
    if len(input_shape) != 1:
        raise ValueError("it reads texts, (time,)")
    units, layers, tied = re.fullmatch(r"lstm_(\d+)x(\d+)(_tied)?", name).groups()
    return LanguageModel(num_classes, int(units), int(layers), tied=tied is not None)


class LanguageModel(nn.Module):
    """From words (batch, time) int64 to the logits of the next ones (batch, time, words).

    Each LSTM layer is a module of its own, so that every non-recurrent connection has its place for dropout: in front
    of each layer and of the decoder.
    """

    def __init__(self, words: int, units: int, layers: int, *, tied: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, units)
        self.lstm = nn.ModuleList(nn.LSTM(units, units, batch_first=True) for _ in range(layers))
        self.drop = nn.ModuleList(nn.Dropout(0.0) for _ in range(layers + 1))
        self.decoder = nn.Linear(units, words)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -((SPREAD / units) ** 0.5), (SPREAD / units) ** 0.5)
        if tied:
            self.decoder.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.drop[0](self.embedding(x))
        for layer, drop in zip(self.lstm, self.drop[1:], strict=True):
            hidden, _ = layer(hidden)
            hidden = drop(hidden)
        return self.decoder(hidden)
