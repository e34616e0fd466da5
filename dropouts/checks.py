"""Refuses bad options of a layer with a sentence."""

from __future__ import annotations


def check_rate(rate: float, name: str = "rate") -> float:
    """The drop rate as it is.

    Raises:
        ValueError: it is outside [0, 1).
    """
    if not 0 <= rate < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, not {rate}")
    return rate
