"""scikit-learn's bundled digits: 1,797 grey images of 8 x 8 pixels; needs neither a download nor a folder."""

from __future__ import annotations

import torch

from harness.sources import Part, Source


def read() -> Source:
    """The digits with their values 0..16 spread over 0..255; there is no published split."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images)[:, None].mul(255 / 16).round().to(torch.uint8)
    part = Part(labels=torch.from_numpy(bunch.target).long(), images=images)
    return Source(parts={"all": part}, class_names=[str(digit) for digit in range(10)])
