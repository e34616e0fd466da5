"""The closed forms of matrix completion against enumeration and minimisation, and the reader of the ratings."""

import itertools
import zipfile

import numpy
import pytest
import scipy.optimize
import torch

from harness.data.prepared import DataError
from harness.sources.download import Archive, md5
from theory import matrix_completion, ratings
from theory.experiment import Data
from theory.ratings import Entries


def law(size, generator):
    weights = torch.rand(size, generator=generator, dtype=torch.float64) + 0.1
    return weights / weights.sum()


@pytest.fixture
def small():
    """A 5 x 4 matrix of rank 2 with the laws of its rows and columns."""
    generator = torch.Generator().manual_seed(3)
    left, right = (torch.randn(size, 2, generator=generator, dtype=torch.float64) for size in (5, 4))
    return left @ right.T, law(5, generator), law(4, generator), generator


def test_expected_loss_is_the_mean_over_all_masks_and_entries(small):
    matrix, p, q, generator = small
    u, v = (torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (5, 4))
    keep_rate, mean = 0.7, 0.0
    for mask in itertools.product([0.0, 1.0], repeat=3):
        kept = torch.tensor(mask, dtype=torch.float64)
        weight = keep_rate ** kept.sum() * (1 - keep_rate) ** (3 - kept.sum())
        mean += weight * (p @ ((u * kept / keep_rate) @ v.T - matrix).square() @ q)
    bare = p @ (u @ v.T - matrix).square() @ q
    closed = bare + (1 - keep_rate) / keep_rate * matrix_completion.regulariser(u, v, p, q)
    torch.testing.assert_close(closed, mean, rtol=1e-12, atol=0)


def test_objective_on_entries_is_the_mean_over_all_masks(small):
    matrix, _, _, generator = small
    u, v = (torch.randn(size, 3, generator=generator, dtype=torch.float64) for size in (5, 4))
    entries = Entries(torch.tensor([0, 0, 3]), torch.tensor([1, 2, 2]), matrix[[0, 0, 3], [1, 2, 2]])
    masks = [torch.tensor(mask, dtype=torch.float64) for mask in itertools.product([0, 1], repeat=3)]
    losses = [matrix_completion.dropout_loss(u, v, entries, lambda x, m=mask: x * m / 0.5) for mask in masks]
    torch.testing.assert_close(
        matrix_completion.objective(u, v, entries, 0.5), torch.stack(losses).mean(), rtol=1e-12, atol=0
    )


def test_best_factors_have_the_product_and_the_least_regulariser(small):
    matrix, p, q, _ = small
    u, v = matrix_completion.best_factors(matrix, p, q, 4)
    torch.testing.assert_close(u @ v.T, matrix)
    least = matrix_completion.least_regulariser(matrix, p, q, 4)
    torch.testing.assert_close(matrix_completion.regulariser(u, v, p, q), least, rtol=1e-12, atol=0)
    columns = (p @ u.square()) * (q @ v.square())
    torch.testing.assert_close(columns, columns.mean().expand(4), rtol=1e-12, atol=0)


def test_no_minimiser_finds_factors_with_a_smaller_regulariser(small):
    matrix, p, q, generator = small
    least = matrix_completion.least_regulariser(matrix, p, q, 3).item()

    def value(flat):
        """R, and a steep penalty for another product."""
        factors = torch.from_numpy(flat).requires_grad_()
        u, v = factors[:15].view(5, 3), factors[15:].view(4, 3)
        loss = matrix_completion.regulariser(u, v, p, q) + 1e3 * (u @ v.T - matrix).square().sum()
        return loss.item(), torch.autograd.grad(loss, factors)[0].numpy()

    start = torch.randn(27, generator=generator, dtype=torch.float64).numpy()
    end = scipy.optimize.minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 2000})
    # The penalty gives way a little.
    assert end.fun == pytest.approx(least, rel=2e-3)


def test_training_rows_hold_every_quantity_of_the_statements(monkeypatch):
    monkeypatch.setattr(matrix_completion, "KEEP_RATES", (0.3, 1.0))
    monkeypatch.setattr(matrix_completion, "SEEDS", (1,))
    rows = matrix_completion.measure_training(
        None, problem_of=lambda _, seed: ratings.synthetic(seed, rows=60, columns=40), steps=600, rate=2.0, batch=200
    )
    assert not rows["value"].isna().any()
    for statement in matrix_completion.TRAINED:
        assert numpy.isfinite(statement(rows).value)
    assert matrix_completion.gap_shrinks(rows).observed


CONTENT = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n1\t1\t5\t0\n"


def test_ratings_are_read_as_the_publisher_writes_them(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as packed:
        packed.writestr("ml-100k/u.data", CONTENT)
    monkeypatch.setattr(ratings, "ARCHIVE", Archive("ml-100k.zip", md5(tmp_path / "ml-100k.zip"), ("-",)))
    entries = ratings.read(Data(tmp_path))
    assert entries.rows.tolist() == [195, 185, 0]
    assert entries.columns.tolist() == [241, 301, 0]
    assert entries.values.tolist() == [3, 3, 5]


def test_ratings_that_are_not_the_published_ones_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"ml-100k\.zip .*missing and downloading is off|are missing"):
        ratings.read(Data(tmp_path))
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"u\.data is not the published file"):
        ratings.read(Data(tmp_path))


@pytest.mark.parametrize("content", [b"1\t2\t3\n", b"1\tx\t3\t4\n", b""])
def test_a_line_that_is_no_rating_is_named(tmp_path, content):
    with pytest.raises(DataError, match=r"u\.data"):
        ratings.parse(content, path=tmp_path / "u.data")
