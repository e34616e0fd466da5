"""A running text: every word is told once, rows go on where they ended, an epoch starts at any batch."""

import pytest
import torch

from harness.data.texts import Text

TOKENS = torch.arange(10, 33)


def text(**options):
    return Text(TOKENS, **{"first": 1, "columns": 3, "unroll": 4, **options})


def test_columns_by_hand():
    (x, y), (x2, y2) = text()
    assert y.tolist() == [[10, 11, 12, 13], [17, 18, 19, 20], [24, 25, 26, 27]]
    assert x.tolist() == [[1, 10, 11, 12], [16, 17, 18, 19], [23, 24, 25, 26]]
    assert x2.tolist() == [[13, 14, 15], [20, 21, 22], [27, 28, 29]] and y2[:, -1].tolist() == [16, 23, 30]


@pytest.mark.parametrize(("columns", "unroll"), [(1, 4), (1, 100), (3, 1), (3, 7), (23, 5)])
def test_every_word_but_the_remainder_is_told_once_and_rows_go_on(columns, unroll):
    loader = text(columns=columns, unroll=unroll)
    batches = list(loader)
    told = torch.cat([y for _, y in batches], 1)
    assert told.flatten().tolist() == TOKENS[: 23 // columns * columns].tolist()
    assert len(batches) == len(loader) and loader.num_examples == told.numel()
    read = torch.cat([x for x, _ in batches], 1)
    assert torch.equal(read[:, 1:], told[:, :-1])


def test_an_epoch_starts_at_any_batch():
    whole = list(text().epoch(0))
    for start in range(len(whole) + 1):
        assert all(torch.equal(a, b) for one, other in zip(text().epoch(5, start), whole[start:], strict=True)
                   for a, b in zip(one, other, strict=True))  # fmt: skip
