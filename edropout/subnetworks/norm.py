"""Batch norm by the statistics of the batch, fast on a CPU for any number of channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Channels-last batch norm on a CPU is about five times slower where the channels are no multiple of 8. Taking 16 pixels
# together as 16 times as many channels brings the speed back; their statistics are combined afterwards.
PIXELS_TOGETHER = 16
# Below this many values the kernel's own time is less than that of the operations around it.
WORTH_GROUPING = 65_536


def needs_grouping(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """True where `GroupedNorm` is right and faster than F.batch_norm."""
    return x.shape[1] % 8 != 0 and x.numel() >= WORTH_GROUPING and groups_of_pixels(x, weight, bias)


def groups_of_pixels(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """True where 16 pixels can be taken together."""
    return (
        x.ndim == 4
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and (x.numel() // x.shape[1]) % PIXELS_TOGETHER == 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and weight is not None
        and bias is not None
        and weight.dtype == x.dtype
    )


def _pixels(x: Tensor) -> Tensor:
    """(batch, channels, height, width) as (1, 16 channels, pixels / 16, 1), a channels-last view."""
    x = x.contiguous(memory_format=torch.channels_last)
    return x.permute(0, 2, 3, 1).reshape(1, -1, 1, PIXELS_TOGETHER * x.shape[1]).permute(0, 3, 1, 2)


def _image(pixels: Tensor, shape: torch.Size) -> Tensor:
    batch, channels, height, width = shape
    return pixels.permute(0, 2, 3, 1).reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _repeat(*vectors: Tensor) -> list[Tensor]:
    return [vector.repeat(PIXELS_TOGETHER) for vector in vectors]


class GroupedNorm(torch.autograd.Function):
    """Batch norm on groups of pixels: (x, weight, bias, eps) -> (y, mean, biased variance)."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        pixels = _pixels(x)
        means, variances = (v.view(-1, len(weight)) for v in torch.batch_norm_update_stats(pixels, None, None, 0.0))
        mean = means.mean(0)
        variance = (variances + (means - mean) ** 2).mean(0)
        mean_, variance_, weight_, bias_ = _repeat(mean, variance, weight, bias)
        y = F.batch_norm(pixels, mean_, variance_, weight_, bias_, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        image = _image(y, x.shape)
        # Not a view, as the activation that follows may work in place.
        result = x.new_empty(0).set_(y.untyped_storage(), y.storage_offset(), image.shape, image.stride())
        return result, mean, variance

    @staticmethod
    def backward(ctx, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            return (*_gradients(x, weight, ctx.eps, gradient, ctx.needs_input_grad), None)
        pixels, above = _pixels(x), _pixels(gradient)
        repeated = _repeat(weight, mean, variance)
        sums = torch.ops.aten.native_batch_norm_backward(
            above, pixels, *repeated, None, None, False, ctx.eps, [False, True, True]
        )
        for_weight, for_bias = (found.view(-1, len(weight)).sum(0) for found in sums[1:])
        count = x.numel() // x.shape[1]
        inverse = (variance + ctx.eps).rsqrt()
        # d loss / d x = weight / deviation * (gradient - mean(gradient) - normalised x * mean(gradient * normalised x))
        of_gradient = weight * inverse
        of_x = -of_gradient * inverse * for_weight / count
        constant = -of_gradient * for_bias / count - of_x * mean
        a, b, c = (vector.view(1, -1, 1, 1) for vector in _repeat(of_gradient, of_x, constant))
        result = torch.addcmul(c, pixels, b).addcmul_(above, a)
        return _image(result, x.shape), for_weight, for_bias, None


def _gradients(
    x: Tensor, weight: Tensor, eps: float, gradient: Tensor, needed: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """What `GroupedNorm.backward` computes, by operations that have gradients of their own."""
    y = F.batch_norm(x, None, None, weight, None, True, 0.0, eps)
    asked = [value for value, need in zip((x, weight), needed, strict=False) if need]
    found = iter(torch.autograd.grad(y, asked, gradient, create_graph=True) if asked else ())
    of_x, of_weight = (next(found) if need else None for need in needed[:2])
    return of_x, of_weight, gradient.sum((0, 2, 3))


def normalise_by_batch_(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Batch norm by the statistics of the batch, without gradient and in place of `x`, for which `groups_of_pixels`.

    A fresh tensor of the size of an activation costs the kernel more time than its arithmetic takes.
    """
    pixels = _pixels(x)
    means, variances = (v.view(-1, len(weight)) for v in torch.batch_norm_update_stats(pixels, None, None, 0.0))
    mean = means.mean(0)
    variance = (variances + (means - mean) ** 2).mean(0)
    scale = weight * (variance + eps).rsqrt()
    shift, scale = _repeat(bias - mean * scale, scale)
    rows = pixels.permute(0, 2, 3, 1).view(-1, len(scale))
    torch.addcmul(shift, rows, scale, out=rows)
    return x


def normalise(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    by_batch: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """What F.batch_norm computes, with its arguments in the same order; running statistics are updated in place."""
    if not by_batch or not needs_grouping(x, weight, bias):
        return F.batch_norm(x, mean, variance, weight, bias, by_batch, momentum, eps)
    y, batch_mean, batch_variance = GroupedNorm.apply(x, weight, bias, eps)
    if mean is not None:
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            mean.lerp_(batch_mean.to(mean.dtype), momentum)
            variance.lerp_((batch_variance * count / (count - 1)).to(variance.dtype), momentum)
    return y
