"""Tables: statistics of the training rows alone, each seed its split, an order that resumes."""

from itertools import chain

import torch

from harness.data.tables import TableEvaluation, TableTraining, standardised

TENSORS = {
    "x": torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 5.0], [100.0, 5.0]], dtype=torch.float64),
    "y": torch.tensor([[1.0], [3.0], [5.0], [7.0]], dtype=torch.float64),
    "parts": torch.tensor([[0, 0, 1, 2], [2, 0, 0, -1]], dtype=torch.int8),
}


def test_training_rows_alone_decide_mean_and_deviation():
    parts, scale = standardised(TENSORS, 0)
    x, y = parts["train"]
    assert x.tolist() == [[-1.0, 0.0], [1.0, 0.0]] and y.tolist() == [[-1.0], [1.0]] and scale == 1.0
    assert parts["val"][0].tolist() == [[3.0, 0.0]] and parts["test"][0].tolist() == [[99.0, 0.0]]
    assert x.dtype == y.dtype == torch.float32


def test_each_seed_has_the_split_of_its_number():
    for seed, test in ((0, [[5.0]]), (1, [[-3.0]]), (2, [[5.0]])):
        assert standardised(TENSORS, seed)[0]["test"][1].tolist() == test
    assert [len(x) for x, _ in standardised(TENSORS, 1)[0].values()] == [2, 0, 1]  # One row is in no part.


def test_classes_stay_as_they_are():
    parts, scale = standardised({**TENSORS, "y": torch.tensor([0, 1, 1, 0])}, 0)
    assert parts["train"][1].tolist() == [0, 1] and scale == 1.0


def test_an_epoch_is_shuffled_by_seed_and_number_and_starts_at_any_batch():
    x = torch.arange(23.0)[:, None]

    def epoch(seed, index, start=0):
        return [batch.flatten().tolist() for batch, _ in TableTraining(x, x, 5, seed).epoch(index, start)]

    assert sorted(chain(*epoch(1, 0))) == x.flatten().tolist() and len(TableTraining(x, x, 5, 1)) == 5
    assert epoch(1, 0) != epoch(1, 1) and epoch(1, 0) != epoch(2, 0) and epoch(1, 3)[2:] == epoch(1, 3, 2)
    assert len(TableTraining(x[:21], x[:21], 5, 1)) == 4  # A last batch of one row is left out.


def test_shares_of_a_set_are_the_set():
    x = torch.arange(7.0)[:, None]
    assert [len(batch) for batch, _ in TableEvaluation(x, x, 3)] == [3, 3, 1]
    shares = [torch.cat([batch for batch, _ in TableEvaluation(x, x, 3, (part, 2))]) for part in (0, 1)]
    assert sorted(torch.cat(shares).flatten().tolist()) == x.flatten().tolist()
