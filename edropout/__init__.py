"""Energy-based dropout and pruning (Salehinejad & Valaee, arXiv:2006.04270) for any torch module."""

from edropout.search import EDropout, KeptRatio
from edropout.subnetworks.removal import kept_units, mask_, prune
from edropout.subnetworks.units import Units
from edropout.target import Target

__all__ = ["EDropout", "KeptRatio", "Target", "Units", "kept_units", "mask_", "prune"]
