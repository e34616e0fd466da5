"""Approximate random dropout: regular patterns make the products of a training step smaller (arXiv:1805.08939)."""

from dropouts.approximate.distributions import least_variance, maximum_entropy, searched
from dropouts.approximate.method import ApproximateDropout
from dropouts.approximate.patterns import Blocks, Rows, SomeBlocks, Tiles

__all__ = [
    "ApproximateDropout",
    "Blocks",
    "Rows",
    "SomeBlocks",
    "Tiles",
    "least_variance",
    "maximum_entropy",
    "searched",
]
