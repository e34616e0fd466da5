"""Bags of words by name: `bag_5000_50_100` knows 5,000 words, embeds each in 50 numbers, and has 100 hidden units."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

NAMES = [r"bag(_[1-9]\d*){2,}"]


class Words(nn.Module):
    """The mean of the embeddings of a sentence's words.

    Args:
        words: Numbers of words that there are; 0 stands for none.
        width: Of an embedding.
    """

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(words, width, mode="mean", padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, length) numbers of words -> (batch, width); an empty sentence gives zeros."""
        return self.embedding(x.long())  # blank inputs, with which networks are counted and timed, are floats


def build(name: str, *, num_classes: int, input_shape: tuple[int]) -> nn.Module:
    """Embedding and hidden linear layers with ReLU, each followed by a place for dropout, and a linear output.

    Args:
        name: `bag`, the number of words, the width of an embedding and those of the hidden layers.
        num_classes: Classes.
        input_shape: (length,) of a sentence; any.
    """
    words, before, *widths = map(int, name.split("_")[1:])
    layers: dict[str, nn.Module] = {"words": Words(words, before), "drop": nn.Dropout(0.0)}
    for number, width in enumerate(widths, start=1):
        layers[f"hidden{number}"] = nn.Linear(before, width)
        layers[f"relu{number}"] = nn.ReLU()
        layers[f"drop{number}"] = nn.Dropout(0.0)
        before = width
    layers["linear"] = nn.Linear(before, num_classes)
    return nn.Sequential(OrderedDict(layers))
