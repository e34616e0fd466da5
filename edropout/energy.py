"""Energy loss of a sub-network: how far the strongest rival class is above the target, on average over a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def energy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of (largest rival logit - target logit), low for a good sub-network.

    The "most offending answer" loss of Salehinejad & Valaee, arXiv:2006.04270; their code scales it by ten, which no
    selection sees. Adding a constant to all logits of a sample changes nothing.

    Args:
        logits: (..., batch, classes) float, at least two classes; less than float32 is averaged in float32.
        target: (batch,) int64 class numbers.

    Returns:
        (...) float, one energy for each leading index.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    chosen = target.expand(logits.shape[:-1]).unsqueeze(-1)
    rivals = logits.scatter(-1, chosen, -torch.inf).amax(-1)
    return (rivals - logits.gather(-1, chosen).squeeze(-1)).mean(-1)
