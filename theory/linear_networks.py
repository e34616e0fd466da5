"""DropBlock and DropConnect in linear networks: minima in closed form (Pal, Lane, Vidal & Haeffele, CVPR 2020).

arXiv:1910.14186. Targets Y (outputs, examples) are fitted by U V^T X with one hidden layer. DropBlock keeps blocks of r
hidden units with rate t, Dropout is r = 1, DropConnect keeps single weights; lam = (1 - t) / t. The abstract has the
statements; the exact forms were derived from them, and the tests hold them against independent computations.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas
import torch
from torch import Tensor

from dropouts.bernoulli import Bernoulli
from theory.experiment import Data, Experiment, Verdict, tidy, values

OUTPUTS, INPUTS, HIDDEN = 30, 20, 24
BY = ["kind", "block", "keep_rate", "inputs"]
SETTINGS = [
    ("dropout", 1, 0.5, "white"),
    ("dropout", 1, 0.5, "correlated"),
    ("dropblock", 3, 0.5, "white"),
    ("dropblock", 6, 0.5, "white"),
    ("dropblock", 6, 0.3, "white"),
    ("dropblock", 6, 0.5, "correlated"),
    ("dropconnect", 1, 0.5, "white"),
]
"""What is trained, by the names in BY: `block` is its hidden units."""
WITHIN = 0.03
"""How far singular values may be from the closed form, as a part of the largest."""
BALANCED = 0.05
"""How far the norms of blocks may be apart, and a ratio from 1."""

# Closed forms


def block_norms(u: Tensor, v: Tensor, block: int) -> Tensor:
    """||U_b V_b^T||_F of each block of hidden units, of u (outputs, hidden) and v (examples, hidden)."""
    left, right = (factor.unflatten(1, (-1, block)).movedim(1, 0) for factor in (u, v))
    return torch.linalg.matrix_norm(left @ right.mT)


def penalty(u: Tensor, v: Tensor, x: Tensor, kind: str, block: int) -> Tensor:
    """What is added to the loss, over lam: sum_b ||U_b V_b^T X||_F^2, but for DropConnect on the input weights.

    Args:
        u: (outputs, hidden).
        v: (inputs, hidden).
        x: (inputs, examples).
        kind: As in `output`.
        block: Hidden units that one coin switches.
    """
    if kind == "dropconnect-inputs":
        return (u.square().sum(0) * (v.square().T @ x.square().sum(1))).sum()
    return block_norms(u, x.T @ v, block).square().sum()


def support_norm(sizes: Tensor, k: int) -> Tensor:
    """The k-support norm of (n,) sizes >= 0: the root of the least sum_i sizes_i^2 / h_i, 0 < h_i <= 1, sum_i h_i <= k.

    Argyriou, Foygel & Srebro, NIPS 2012. For k = 1 their sum; of singular values, the spectral k-support norm.
    """
    nu = _threshold(lambda _: sizes, k, high=float(sizes.sum()))
    return torch.where(sizes > nu, sizes.square(), sizes * nu).sum().sqrt()


def minimum(sizes: Tensor, block: int, keep_rate: float, hidden: int) -> Tensor:
    """Singular values of U V^T X at the global minimum, which has the singular vectors of Y.

    They are the w with the least ||sizes - w||^2 + beta ||w||_{r-support}^2, where beta = lam r / hidden.

    Args:
        sizes: (n,) singular values of Y, projected on the rows of X.
        block: r.
        keep_rate: t.
        hidden: Number of hidden units, at least n.
    """
    beta = (1 - keep_rate) / keep_rate * block / hidden

    def shrunk(nu: float) -> Tensor:
        return torch.where(sizes > (1 + beta) * nu, sizes / (1 + beta), (sizes - beta * nu).clamp_min(0))

    return shrunk(_threshold(shrunk, block, high=float(sizes.sum())))


def _threshold(sizes_at: Callable[[float], Tensor], count: int, high: float) -> float:
    """The nu with sum_i min(1, sizes_at(nu)_i / nu) = count, by bisection; about 0 where there are fewer sizes."""
    low = 0.0
    for _ in range(100):
        nu = (low + high) / 2
        low, high = (nu, high) if (sizes_at(nu) / nu).clamp_max(1).sum() > count else (low, nu)
    return high


# Networks


def output(u: Tensor, v: Tensor, x: Tensor, kind: str, block: int, dropout: Bernoulli) -> Tensor:
    """Outputs (outputs, examples) of the network with masks of their own for every example.

    Args:
        u: (outputs, hidden).
        v: (inputs, hidden).
        x: (inputs, examples).
        kind: "dropout", "dropblock", "dropconnect" (on u) or "dropconnect-inputs" (on v).
        block: Hidden units that one coin switches.
        dropout: Makes the coins.
    """
    if kind == "dropconnect-inputs":
        return u @ torch.einsum("eih,ie->he", dropout(v.expand(x.shape[1], *v.shape)), x)
    hidden = x.T @ v
    if kind == "dropconnect":
        return torch.einsum("eoh,eh->oe", dropout(u.expand(x.shape[1], *u.shape)), hidden)
    coins = dropout(hidden.new_ones(x.shape[1], u.shape[1] // block)).repeat_interleave(block, 1)
    return u @ (hidden * coins).T


def problem(inputs: str, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (inputs, examples), "white" or "correlated", and targets (outputs, examples)."""
    x = torch.eye(INPUTS, dtype=torch.float64)
    if inputs == "correlated":
        x = torch.randn(INPUTS, 2 * INPUTS, generator=generator, dtype=torch.float64) / INPUTS**0.5
        x[1:] += x[:-1] / 2
    bases = [torch.randn(rows, INPUTS, generator=generator, dtype=torch.float64) for rows in (OUTPUTS, x.shape[1])]
    left, right = (torch.linalg.qr(basis).Q for basis in bases)
    sizes = torch.tensor([*range(10, 0, -1), *[0.5] * (INPUTS - 10)], dtype=torch.float64)
    return x, left * sizes @ right.T


# Statements


def loss_is_explicit(rows: pandas.DataFrame) -> Verdict:
    """The expected loss is the loss plus lam times the squared norms of the blocks' products.

    Source: the abstract, which has an explicit regulariser for DropBlock; masks of blocks are independent.
    Observed: for every kind, a mean over masks agrees with the closed form within 1 %.
    Refuted by: a difference that more masks do not shrink.
    """
    apart = _ratio(rows, "monte_carlo", "closed_form") - 1
    return Verdict("largest |Monte Carlo / closed form - 1|", apart.abs().max(), high=0.01)


def dropconnect_is_dropout(rows: pandas.DataFrame) -> Verdict:
    """DropConnect on the output weights has the expected loss of Dropout, whatever the inputs.

    Source: the abstract, by which DropConnect and Dropout are equivalent in these networks.
    Observed: a mean over masks of weights agrees with Dropout's closed form within 1 %.
    Refuted by: a difference that more masks do not shrink.
    """
    drawn = values(rows, "monte_carlo", ["inputs", "kind"]).unstack("kind")["dropconnect"]
    apart = drawn / values(rows, "closed_form", ["inputs", "kind"]).unstack("kind")["dropout"] - 1
    return Verdict("largest |DropConnect / Dropout - 1|", apart.abs().max(), high=0.01)


def input_weights_need_white_inputs(rows: pandas.DataFrame) -> Verdict:
    """DropConnect on the input weights has the penalty of Dropout for white inputs, and only for them.

    Source: derived: its penalty is lam sum_k ||u_k||^2 sum_i v_ik^2 ||x_i||^2, with x_i the rows of X.
    Observed: the same penalty for white inputs, one more than 1 % off for correlated ones.
    Refuted by: the same penalty for correlated inputs, or another for white ones.
    """
    added = values(rows, "penalty", ["inputs", "kind"]).unstack("kind")
    apart = (added["dropconnect-inputs"] / added["dropout"] - 1).abs()
    value = apart["correlated"] if apart["white"] < 1e-9 else 0.0
    return Verdict("|penalty / Dropout's - 1| for correlated inputs", value, low=0.01)


def minimum_is_reached(rows: pandas.DataFrame) -> Verdict:
    """SGD with sampled masks ends at the global minimum that the closed form gives.

    Source: the abstract, by which the global minimum has a closed form.
    Observed: every singular value lies within 3 % of the largest one from its closed form.
    Refuted by: singular values elsewhere, with a training that has come to rest.
    """
    apart = _ratio(rows, "singular_value_error", "largest_singular_value")
    return Verdict("largest error / largest singular value", apart.max(), high=WITHIN)


def penalty_is_support_norm(rows: pandas.DataFrame) -> Verdict:
    """At its end the penalty is the squared spectral r-support norm of the product over the number of blocks.

    Source: the abstract, by which DropBlock regularises by the spectral k-support norm.
    Observed: the ratio of both lies within 5 % of 1, and not below: the norm is the least that factors can have.
    Refuted by: a ratio that stays above, or one below 1.
    """
    ratio = values(rows, "support_norm_ratio", BY)
    return Verdict("largest penalty x blocks / norm^2", ratio.max(), low=1 - 1e-6, high=1 + BALANCED)


def blocks_are_balanced(rows: pandas.DataFrame) -> Verdict:
    """At its end all blocks have a product of the same norm.

    Source: the abstract, by which the factors of blocks have equal norms.
    Observed: the largest norm is at most 5 % above the smallest.
    Refuted by: blocks that stay unequal.
    """
    ratio = values(rows, "block_ratio", BY)
    return Verdict("largest / smallest norm of a block", ratio.max(), high=1 + BALANCED)


def minimum_is_low_rank(rows: pandas.DataFrame) -> Verdict:
    """The end has a lower rank than the targets.

    Source: the abstract, by which the solutions have low rank.
    Observed: fewer singular values above 3 % of the largest one than the targets have.
    Refuted by: a full rank.
    """
    ratio = _ratio(rows, "rank", "rank_of_targets")
    return Verdict("largest rank / rank of the targets", ratio.max(), high=1 - 1 / INPUTS)


def _ratio(rows: pandas.DataFrame, above: str, below: str) -> pandas.Series:
    return values(rows, above, BY) / values(rows, below, BY)


# Measurements


def measure_losses(data: Data, *, passes: int = 4000) -> pandas.DataFrame:
    """The mean loss over `passes` draws of all masks, for every kind and random weights."""
    rows, generator = [], torch.Generator().manual_seed(0)
    kinds = (("dropout", 1), ("dropblock", 3), ("dropblock", 6), ("dropconnect", 1), ("dropconnect-inputs", 1))
    for inputs in ("white", "correlated"):
        x, targets = problem(inputs, generator)
        u, v = (torch.randn(n, HIDDEN, generator=generator, dtype=x.dtype) / 2 for n in (OUTPUTS, x.shape[1]))
        v = x @ v  # Where gradients lie too.
        for kind, block in kinds:
            dropout = Bernoulli(0.5, generator=generator)
            drawn = [(targets - output(u, v, x, kind, block, dropout)).square().sum().item() for _ in range(passes)]
            added, bare = penalty(u, v, x, kind, block).item(), (targets - u @ v.T @ x).square().sum().item()
            setting = dict(zip(BY, (kind, block, 0.5, inputs), strict=True))
            rows.append(setting | {"monte_carlo": sum(drawn) / passes, "closed_form": bare + added, "penalty": added})
    return tidy(rows, *BY)


def train(
    x: Tensor, targets: Tensor, kind: str, block: int, keep_rate: float, *, steps: int, rate: float
) -> list[Tensor]:
    """Factors u (outputs, hidden) and v (inputs, hidden) after SGD: their means over the last quarter of the steps.

    The learning rate stays for half of the steps and then falls to zero.
    """
    generator = torch.Generator().manual_seed(1)
    dropout = Bernoulli(1 - keep_rate, generator=generator)
    u, v = (0.3 * torch.randn(n, HIDDEN, generator=generator, dtype=x.dtype) for n in (OUTPUTS, INPUTS))
    factors, means = (u.requires_grad_(), v.requires_grad_()), [torch.zeros_like(u), torch.zeros_like(v)]
    for step in range(steps):
        loss = (targets - output(u, v, x, kind, block, dropout)).square().sum()
        gradients = torch.autograd.grad(loss, factors)
        with torch.no_grad():
            for factor, gradient, mean in zip(factors, gradients, means, strict=True):
                factor.sub_(gradient, alpha=rate * min(1, 2 - 2 * step / steps))
                if step >= steps * 3 // 4:
                    mean.add_(factor, alpha=1 / (steps - steps * 3 // 4))
    return means


def measure_minima(data: Data, *, steps: int = 25_000, rate: float = 1e-3) -> pandas.DataFrame:
    """What SGD ends at, beside the closed form, for each of `SETTINGS`; singular values with their `index`."""
    rows = []
    for kind, block, keep_rate, inputs in SETTINGS:
        x, targets = problem(inputs, torch.Generator().manual_seed(0))
        projected = targets @ torch.linalg.pinv(x) @ x
        u, v = train(x, targets, kind, block, keep_rate, steps=steps, rate=rate)
        v = x.T @ v
        found, sizes = (torch.linalg.svdvals(product)[:INPUTS] for product in (u @ v.T, projected))
        expected, norms = minimum(sizes, block, keep_rate, HIDDEN), block_norms(u, v, block)
        setting = dict(zip(BY, (kind, block, keep_rate, inputs), strict=True))
        pairs = enumerate(zip(found.tolist(), expected.tolist(), strict=True), 1)
        rows += [setting | {"index": index, "singular_value": a, "closed_form": b} for index, (a, b) in pairs]
        rows.append(
            setting
            | {
                "singular_value_error": (found - expected).abs().max().item(),
                "largest_singular_value": expected.max().item(),
                "support_norm_ratio": (len(norms) * norms.square().sum() / support_norm(found, block).square()).item(),
                "block_ratio": (norms.max() / norms.min()).item(),
                "rank": int((found > WITHIN * found.max()).sum()),
                "rank_of_targets": int((sizes > WITHIN * sizes.max()).sum()),
            }
        )
    return tidy(rows, *BY, "index").dropna(subset="value")


EXPERIMENTS = (
    Experiment(
        "synthetic", measure_losses, (loss_is_explicit, dropconnect_is_dropout, input_weights_need_white_inputs)
    ),
    Experiment(
        "synthetic",
        measure_minima,
        (minimum_is_reached, penalty_is_support_norm, blocks_are_balanced, minimum_is_low_rank),
    ),
)
