"""Grouped batch norm is batch norm."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from edropout.subnetworks.norm import needs_grouping, normalise


@pytest.mark.parametrize("channels", [3, 33])
def test_grouped_batch_norm_equals_the_ordinary_one_with_gradients_and_running_statistics(channels: int) -> None:
    torch.manual_seed(0)
    image = torch.randn(16, channels, 40, 40, dtype=torch.float64) * 3 + 2
    x = image.contiguous(memory_format=torch.channels_last)
    weight, bias, above = torch.rand(channels).double(), torch.randn(channels).double(), torch.randn_like(x)
    assert needs_grouping(x, weight, bias)
    found = []
    for compute in (F.batch_norm, normalise):
        inputs = [value.clone().requires_grad_() for value in (x, weight, bias)]
        running = torch.zeros(channels).double(), torch.ones(channels).double()
        y = compute(inputs[0], *running, inputs[1], inputs[2], True, 0.1, 1e-5)
        found.append((y, *torch.autograd.grad(y, inputs, above), *running))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-11)
