"""Predictions by sampling: several passes with the noise of training, whose spread says how sure a network is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dropouts.advanced import Advanced
from dropouts.beta_bernoulli import BetaBernoulli, DependentBetaBernoulli
from dropouts.concrete import Concrete
from dropouts.dropconnect import DropConnect
from dropouts.information import Information
from dropouts.plain import Noise
from dropouts.schedules import Scheduled
from dropouts.sites import OWN
from dropouts.sparse_variational import SparseVariational
from dropouts.standout import Standout
from dropouts.variational import VariationalWeights
from dropouts.variational_bayesian import VariationalBayesian, VariationalBayesianWeights

STOCHASTIC = (
    *(Noise, Advanced, BetaBernoulli, DependentBetaBernoulli, Concrete, DropConnect, Information, Scheduled),
    *(SparseVariational, Standout, VariationalWeights, VariationalBayesian, VariationalBayesianWeights),
    *(*OWN, nn.RNNBase),
)
"""What draws in training mode, torch's own dropout and that between recurrent layers included."""


@contextmanager
def sampling(network: nn.Module) -> Iterator[nn.Module]:
    """Have the layers that draw do so meanwhile, and all others, batch norms among them, work as in evaluation mode.

    Every module has its mode back afterwards.

    Raises:
        ValueError: no layer of the network draws.
    """
    drawing: list[nn.Module] = [module for module in network.modules() if isinstance(module, STOCHASTIC)]
    if not drawing:
        raise ValueError(f"{type(network).__name__} has no layer that draws: every sample would be the same")
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for layer in drawing:
        layer.training = True  # not `train()`, which would reach a batch norm inside it
    try:
        yield network
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def sample(network: nn.Module, x: Tensor, samples: int = 100) -> Tensor:
    """Monte Carlo dropout: the outputs of several passes that draw anew (Gal & Ghahramani, arXiv:1506.02142).

    Their mean is the prediction, their spread what the network does not know; of logits, average the softmax. For the
    layers that learn their noise this samples the posterior of the weights. Without gradients.

    Args:
        network: With layers of the family, or torch's own dropout, in it: sample before `plain` takes them out.
        x: A batch of inputs.
        samples: Number of passes.

    Returns:
        (samples, *outputs).

    Raises:
        ValueError: no layer of the network draws.
    """
    with sampling(network):
        return torch.stack([network(x) for _ in range(samples)])
