"""Energy-based dropout and pruning (Salehinejad & Valaee, arXiv:2006.04270) for any torch module."""

from edropout.search import EDropout, KeptRatio
from edropout.subnetwork import kept_units, mask_, prune
from edropout.units import Units

__all__ = ["EDropout", "KeptRatio", "Units", "kept_units", "mask_", "prune"]
