"""Batches of a running text: columns that are read side by side, some tokens further with every batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Text:
    """A text in `columns` equal parts, each read from its start; the same for training and for evaluation.

    Row b of every batch goes on where row b of the batch before ended. A token is to be told from those before it in
    its column and from the one in front of the column, so that each token of the text but the remainder of the division
    is a target once; the first follows on `first`.

    Attributes:
        tokens: (tokens,) int64 on the device.
        first: What stands in front of the text: the number of the end of a sentence.
        columns: Parts of the text, rows of a batch.
        unroll: Tokens of each part in a batch; the last batch may have fewer.
        seed: Not used by the order, which is the text's; methods that draw by batch may.
    """

    tokens: Tensor
    first: int
    columns: int
    unroll: int
    seed: int = 0

    @property
    def num_examples(self) -> int:
        """Tokens that are targets."""
        return self.targets.numel()

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return self.columns

    @property
    def targets(self) -> Tensor:
        """(columns, tokens of each) int64."""
        return self._columns(self.tokens)

    def __len__(self) -> int:
        return -(-(len(self.tokens) // self.columns) // self.unroll)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, index: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches from batch `start` on, alike in every epoch: x and y (columns, unroll), y one token further."""
        before = self._columns(self.tokens.roll(1).index_fill(0, self.tokens.new_zeros(1), self.first))
        for x, y in list(zip(before.split(self.unroll, 1), self.targets.split(self.unroll, 1), strict=True))[start:]:
            yield x.contiguous(), y.contiguous()

    def _columns(self, tokens: Tensor) -> Tensor:
        length = len(tokens) // self.columns
        return tokens[: self.columns * length].view(self.columns, length)
