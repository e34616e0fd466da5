"""Layers that take the place of nn.Dropout in any torch network: the dropout family, importing torch alone."""

from dropouts.bernoulli import Bernoulli
from dropouts.sites import penalty, replace

__all__ = ["Bernoulli", "penalty", "replace"]
