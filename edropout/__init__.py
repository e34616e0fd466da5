"""Energy-based dropout and pruning (Salehinejad & Valaee, arXiv:2006.04270) for any torch module."""

from edropout.search import EDropout, KeptRatio
from edropout.subnetwork import kept_units, mask_, prune
from edropout.target import Target
from edropout.units import Units

__all__ = ["EDropout", "KeptRatio", "Target", "Units", "kept_units", "mask_", "prune"]
