"""Dropout for matrix completion regularises by a weighted trace norm (Arora, Bartlett, Mianjy & Srebro, ICML 2021).

arXiv:2003.03397. An entry (i, j), drawn as i ~ p and j ~ q, is predicted by u_i . v_j with dropout on u_i, which keeps
with rate t; lam = (1 - t) / t. The abstract has the statements; the exact forms were derived from them, and the tests
hold them against independent computations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pandas
import scipy.linalg
import torch
from torch import Tensor
from torch.nn.functional import embedding

from dropouts.bernoulli import Bernoulli
from theory.experiment import Data, Experiment, Verdict, largest_step, tidy, values
from theory.ratings import Entries, Problem, movielens, synthetic

KEEP_RATES = (0.3, 0.5, 0.7, 0.9, 1.0)
WIDTH = 32
"""Columns of the factors: more than the rank that dropout leaves, and the order of a Hadamard matrix."""
SEEDS = (1, 2)
WITHIN = 0.05
"""How far from 1 a ratio may be that should be 1."""

Loss = Callable[[Tensor, Tensor, Entries], Tensor]
"""Of factors u (rows, width) and v (columns, width) on some entries: a scalar."""

# Closed forms


def regulariser(u: Tensor, v: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """R = sum_k (sum_i p_i u_ik^2) (sum_j q_j v_jk^2), of factors u (rows, width) and v (columns, width)."""
    return ((p @ u.square()) * (q @ v.square())).sum()


def weighted(matrix: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """diag(sqrt p) matrix diag(sqrt q): its trace norm is the weighted one of `matrix`."""
    return p.sqrt()[:, None] * matrix * q.sqrt()


def least_regulariser(matrix: Tensor, p: Tensor, q: Tensor, width: int) -> Tensor:
    """The least R of all factors of `matrix` that have `width` columns, at least as many as its rank."""
    return torch.linalg.matrix_norm(weighted(matrix, p, q), ord="nuc").square() / width


def best_factors(matrix: Tensor, p: Tensor, q: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Factors that attain it: balanced ones, turned by a Hadamard matrix so that all columns weigh the same.

    Args:
        matrix: (rows, columns) of rank at most `width`.
        p: Law of the rows, positive.
        q: Law of the columns, positive.
        width: The order of a Hadamard matrix, such as a power of two.
    """
    left, sizes, right = torch.linalg.svd(weighted(matrix, p, q), full_matrices=False)
    rank = min(width, len(sizes))
    turn = torch.from_numpy(scipy.linalg.hadamard(width)).to(matrix)[:rank] * (sizes[:rank, None] / width).sqrt()
    return left[:, :rank] @ turn / p.sqrt()[:, None], right[:rank].T @ turn / q.sqrt()[:, None]


def objective(u: Tensor, v: Tensor, entries: Entries, keep_rate: float) -> Tensor:
    """Squared loss with its regulariser, as dropout has them on these entries in the mean: a scalar."""
    left, right = embedding(entries.rows, u), embedding(entries.columns, v)
    product = left * right
    excess = (1 - keep_rate) / keep_rate * product.square().sum(1)
    return ((product.sum(1) - entries.values).square() + excess).mean()


def dropout_loss(u: Tensor, v: Tensor, entries: Entries, dropout: Bernoulli) -> Tensor:
    """Squared loss with one mask for each entry: a scalar."""
    left, right = embedding(entries.rows, u), embedding(entries.columns, v)
    return ((dropout(left) * right).sum(1) - entries.values).square().mean()


# Statements


def loss_is_explicit(rows: pandas.DataFrame) -> Verdict:
    """The expected loss under dropout is the loss without it plus lam R.

    Source: the abstract, which calls the regulariser explicit; a mask z that keeps with rate t has E (z/t)^2 = 1 + lam.
    Observed: at every rate, a mean over drawn entries and masks agrees with the closed form within 1 %.
    Refuted by: a difference that more draws do not shrink.
    """
    drawn, closed = values(rows, "monte_carlo", "keep_rate"), values(rows, "closed_form", "keep_rate")
    return Verdict("largest |Monte Carlo / closed form - 1|", (drawn / closed - 1).abs().max(), high=0.01)


def least_regulariser_is_the_norm(rows: pandas.DataFrame) -> Verdict:
    """The least R of all factors of a matrix is its weighted trace norm, squared and over the width.

    Source: the abstract, by which the regulariser amounts to the weighted trace norm of the product of the factors.
    Observed: constructed factors attain it, and none of 1,000 others of the same product falls below.
    Refuted by: any factors with less.
    """
    ratios = rows.loc[rows["quantity"].isin(["constructed_ratio", "turned_ratio"]), "value"]
    return Verdict("smallest R x width / norm^2", ratios.min(), low=1 - 1e-9, high=1 + 1e-9)


def dropout_follows_the_objective(rows: pandas.DataFrame) -> Verdict:
    """Training with dropout follows training on the explicit objective.

    Source: the two losses are one in expectation.
    Observed: at every rate, the objective along both differs by less than 5 %, on average over training.
    Refuted by: paths that part although steps are small.
    """
    paths = values(rows, "objective", ["keep_rate", "training", "step"]).unstack("training")
    apart = (paths["dropout"] / paths["explicit"] - 1).abs().groupby("keep_rate").mean()
    return Verdict("largest mean difference", apart.max(), high=WITHIN)


def trace_norm_is_attained(rows: pandas.DataFrame) -> Verdict:
    """Training with dropout ends at factors that have the least R of their product.

    Source: the abstract, by which the norm of the product is what acts.
    Observed: at every rate, R x width over the squared weighted trace norm lies within 5 % of 1.
    Refuted by: a ratio that stays away from 1.
    """
    ratio = values(rows, "weighted_ratio", "keep_rate").drop(1.0)
    return Verdict("largest R x width / weighted norm^2", ratio.max(), low=1 - 1e-4, high=1 + WITHIN)


def unweighted_norm_is_not(rows: pandas.DataFrame) -> Verdict:
    """The same without the weights p and q does not hold.

    Source: the abstract, which calls the regulariser data-dependent.
    Observed: at every rate, the ratio without weights is more than 5 % above 1.
    Refuted by: a ratio as near to 1 as the weighted one.
    """
    ratio = values(rows, "unweighted_ratio", "keep_rate").drop(1.0)
    return Verdict("smallest ratio without weights", ratio.min(), low=1 + WITHIN)


def gap_shrinks(rows: pandas.DataFrame) -> Verdict:
    """The more is dropped, the smaller is the gap between test and training loss.

    Source: the abstract, by which the regulariser controls the capacity.
    Observed: the gap, a mean over seeds, falls from each drop rate to the next higher one.
    Refuted by: a gap that grows.
    """
    gap = values(rows, "test_loss", "keep_rate") - values(rows, "train_loss", "keep_rate")
    return Verdict("largest gap / gap at the drop rate before", largest_step(gap[::-1]), low=0, high=1)


def rank_falls(rows: pandas.DataFrame) -> Verdict:
    """The more is dropped, the lower is the effective rank of the product.

    Source: a trace norm favours low rank. The effective rank is exp of the entropy of the weighted singular values.
    Observed: the rank, a mean over seeds, falls from each drop rate to the next higher one.
    Refuted by: a rank that grows.
    """
    rank = values(rows, "effective_rank", "keep_rate")
    return Verdict("largest rank / rank at the drop rate before", largest_step(rank[::-1]), low=0, high=1)


# Measurements


def train(
    problem: Problem, loss: Loss, *, seed: int, steps: int, rate: float, batch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Factors after each step of SGD on `loss`; the learning rate stays for half of them and then falls to zero."""
    generator = torch.Generator().manual_seed(seed)
    u, v = (0.3 * torch.randn(len(law), WIDTH, generator=generator) for law in (problem.p, problem.q))
    parameters = [u.requires_grad_(), v.requires_grad_()]
    for step in range(steps):
        chosen = torch.randint(len(problem.train), (batch,), generator=generator)
        gradients = torch.autograd.grad(loss(u, v, problem.train[chosen]), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.sub_(gradient, alpha=rate * min(1, 2 - 2 * step / steps))
        yield u.detach(), v.detach()


def with_dropout(keep_rate: float, seed: int) -> Loss:
    """The loss of `train` that drops."""
    dropout = Bernoulli(1 - keep_rate, generator=torch.Generator().manual_seed(1000 + seed))
    return lambda u, v, entries: dropout_loss(u, v, entries, dropout)


def describe(u: Tensor, v: Tensor, problem: Problem) -> dict[str, float]:
    """What trained factors are like."""
    u, v, p, q = (part.double() for part in (u, v, problem.p, problem.q))
    ones = [torch.full_like(law, 1 / len(law)) for law in (p, q)]
    shares = torch.linalg.svdvals(weighted(u @ v.T, p, q))
    shares = shares / shares.sum()
    return {
        "weighted_ratio": (regulariser(u, v, p, q) / least_regulariser(u @ v.T, p, q, WIDTH)).item(),
        "unweighted_ratio": (regulariser(u, v, *ones) / least_regulariser(u @ v.T, *ones, WIDTH)).item(),
        "effective_rank": torch.special.entr(shares).sum().exp().item(),
        "train_loss": objective(u, v, problem.train, 1).item(),
        "test_loss": objective(u, v, problem.test, 1).item(),
    }


def measure_forms(data: Data) -> pandas.DataFrame:
    """The expected loss by drawing, and R of constructed and of turned factors, all of a matrix of rank 5."""
    problem, generator = synthetic(0), torch.Generator().manual_seed(0)
    p, q = problem.p.double(), problem.q.double()
    u, v, left, right = (
        torch.randn(len(law), width, generator=generator, dtype=torch.float64)
        for law, width in ((p, WIDTH), (q, WIDTH), (p, 5), (q, 5))
    )
    matrix, draws, rows = left @ right.T, 1_000_000, []
    i, j = (torch.multinomial(law, draws, replacement=True, generator=generator) for law in (p, q))
    bare = p @ (u @ v.T - matrix).square() @ q
    for keep_rate in KEEP_RATES:
        dropout = Bernoulli(1 - keep_rate, generator=generator)
        parts = zip(i.split(50_000), j.split(50_000), strict=True)
        drawn = [dropout_loss(u, v, Entries(i, j, matrix[i, j]), dropout).item() for i, j in parts]
        closed = bare + (1 - keep_rate) / keep_rate * regulariser(u, v, p, q)
        rows.append({"keep_rate": keep_rate, "monte_carlo": sum(drawn) / len(drawn), "closed_form": closed.item()})
    factors, least = best_factors(matrix, p, q, WIDTH), least_regulariser(matrix, p, q, WIDTH)
    ratios = [{"constructed_ratio": (regulariser(*factors, p, q) / least).item()}]
    for _ in range(1000):
        turn, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))
        ratios.append({"turned_ratio": (regulariser(*(factor @ turn for factor in factors), p, q) / least).item()})
    return pandas.concat([tidy(rows, "keep_rate"), tidy(ratios)]).dropna(subset="value")


def measure_paths(data: Data) -> pandas.DataFrame:
    """The explicit objective along training with dropout and along training on itself, from the same factors."""
    problem, rows, steps = synthetic(0), [], 2000
    for keep_rate in KEEP_RATES[:-1]:
        explicit = partial(objective, keep_rate=keep_rate)
        for name, loss in (("dropout", with_dropout(keep_rate, seed=0)), ("explicit", explicit)):
            path = train(problem, loss, seed=0, steps=steps, rate=2.0, batch=2000)
            for step, factors in enumerate(path, 1):
                if step % (steps // 20) == 0:
                    value = explicit(*factors, problem.train).item()
                    rows.append({"keep_rate": keep_rate, "training": name, "step": step, "objective": value})
    return tidy(rows, "keep_rate", "training", "step")


def measure_training(data: Data, *, problem_of: Callable[[Data, int], Problem], **options: Any) -> pandas.DataFrame:
    """What training with dropout ends at, for each rate and seed."""
    rows = []
    for seed in SEEDS:
        problem = problem_of(data, seed)
        for keep_rate in KEEP_RATES:
            *_, (u, v) = train(problem, with_dropout(keep_rate, seed), seed=seed, **options)
            rows.append({"keep_rate": keep_rate, "seed": seed, **describe(u, v, problem)})
    return tidy(rows, "keep_rate", "seed")


TRAINED = (trace_norm_is_attained, unweighted_norm_is_not, gap_shrinks, rank_falls)
EXPERIMENTS = (
    Experiment("synthetic", measure_forms, (loss_is_explicit, least_regulariser_is_the_norm)),
    Experiment("synthetic", measure_paths, (dropout_follows_the_objective,)),
    Experiment(
        "synthetic",
        partial(measure_training, problem_of=lambda _, seed: synthetic(seed), steps=4000, rate=4.0, batch=500),
        TRAINED,
    ),
    Experiment(
        "movielens-100k",
        partial(measure_training, problem_of=movielens, steps=2500, rate=25.0, batch=2000),
        TRAINED,
    ),
)
