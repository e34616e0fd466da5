"""Subset selection and least squares on a Gram matrix: what reconstruction-based pruning needs of its samples.

With X (samples, channels) and the target y = X 1, everything follows from G = X^T X: the squared norm of the summed
channels of a set T is 1_T^T G 1_T, and the normal equations of a kept set K are G_KK w = G_K: 1. So the cost after one
pass over the samples does not depend on their number.
"""

from __future__ import annotations

import torch
from torch import Tensor


def drop_smallest_sum(gram: Tensor, count: int) -> Tensor:
    """Greedily drop channels so that the sum over the dropped ones stays small (Luo et al., ICCV 2017, algorithm 1).

    Args:
        gram: (channels, channels) G, float64.
        count: How many channels to keep.

    Returns:
        (channels,) bool, True = kept.
    """
    kept = torch.ones(len(gram), dtype=torch.bool, device=gram.device)
    diagonal, with_dropped = gram.diagonal(), torch.zeros_like(gram[0])
    for _ in range(len(gram) - count):
        # ||sum_T + x_j||^2 without ||sum_T||^2, which is the same for all j.
        growth = (2 * with_dropped + diagonal).masked_fill(~kept, torch.inf)
        dropped = growth.argmin()
        kept[dropped] = False
        with_dropped += gram[dropped]
    return kept


def keep_best_fit(gram: Tensor, count: int) -> Tensor:
    """Greedily keep the channel that lowers the residual of y most, all weights solved anew each time.

    This is the selection of ThiNet's journal version (Luo et al., TPAMI 2019) as orthogonal least squares: what the
    kept channels explain is projected out of G, so that the gain of each candidate j is r_j^2 / G_jj.

    Args:
        gram: (channels, channels) G, float64.
        count: How many channels to keep.

    Returns:
        (channels,) bool, True = kept.
    """
    left, residual = gram.clone(), gram.sum(1)
    kept = torch.zeros(len(gram), dtype=torch.bool, device=gram.device)
    smallest = 1e-12 * gram.diagonal().max().clamp(min=1e-300)
    for _ in range(count):
        # A channel that the kept ones explain fully gains nothing.
        explained = left.diagonal() <= smallest
        gain = (residual**2 / left.diagonal().clamp(min=smallest)).masked_fill(explained, 0).masked_fill(kept, -1)
        best = gain.argmax()
        kept[best] = True
        if not explained[best]:
            column = left[:, best] / left[best, best]
            residual = residual - column * residual[best]
            left = left - column[:, None] * left[best]
    return kept


def rescaling(gram: Tensor, kept: Tensor) -> Tensor:
    """The weights w of the kept channels that reproduce y best: argmin ||y - X_K w||.

    Solved for the change w - 1 of least norm, so that it is exactly zero when nothing is dropped or when channels are
    never active.

    Args:
        gram: (channels, channels) G, float64.
        kept: (channels,) bool.

    Returns:
        (kept channels,) float64.
    """
    lost = gram[kept][:, ~kept].sum(1)
    return 1 + torch.linalg.pinv(gram[kept][:, kept], hermitian=True, rtol=1e-10) @ lost


def relative_error(gram: Tensor, kept: Tensor, weights: Tensor) -> float:
    """||y - X_K w||^2 / ||y||^2; 0 where y is zero throughout."""
    coefficients = torch.ones_like(gram[0])
    coefficients[kept] -= weights
    total = gram.sum()
    return float((coefficients @ gram @ coefficients).clamp(min=0) / total) if total > 0 else 0.0
