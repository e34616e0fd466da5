"""What the harness measures on the network that a method returns; no method measures itself."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

TOP = (1, 3, 5)


class EvaluationMemoryError(RuntimeError):
    """The GPU's memory does not hold a batch of the evaluation."""


@contextlib.contextmanager
def _in_evaluation() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EvaluationMemoryError(str(error)) from error


@_in_evaluation()
@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Loss and top-k accuracy as means over examples, in evaluation mode.

    Args:
        model: From images to logits (batch, classes); its training mode is restored.
        batches: Pairs of x (batch, channels, height, width) and labels y (batch,).

    Returns:
        `loss` (mean cross-entropy), `top1`, `top3`, `top5` (fractions; k capped at the number of classes), `examples`.

    Raises:
        EvaluationMemoryError: a batch does not fit into the GPU's memory.
    """
    was_training = model.training
    model.eval()
    loss_sum, correct, examples = 0.0, dict.fromkeys(TOP, 0), 0
    for x, y in batches:
        logits = model(x.contiguous(memory_format=torch.channels_last)).float()
        loss_sum += functional.cross_entropy(logits, y, reduction="sum").double().item()
        ranked = logits.topk(min(max(TOP), logits.shape[1]), dim=1).indices == y[:, None]
        for k in TOP:
            correct[k] += int(ranked[:, :k].sum())
        examples += len(y)
    model.train(was_training)
    return {
        "loss": loss_sum / examples,
        **{f"top{k}": correct[k] / examples for k in TOP},
        "examples": examples,
    }


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters, batch norm and biases included."""
    return sum(parameter.numel() for parameter in model.parameters())


def nonzero(model: nn.Module) -> int:
    """Parameters without the exact zeros of weight tensors.

    Biases and batch-norm parameters always count: a zero there is a value, not a pruned weight.
    """
    return sum(
        int(parameter.count_nonzero()) if parameter.dim() > 1 else parameter.numel() for parameter in model.parameters()
    )


def layer_ratios(model: nn.Module, dense: nn.Module) -> dict[str, float]:
    """Kept ratio of each weight tensor of `dense`: non-zeros in `model` over all entries in `dense`.

    A layer that a method has put into another module has its weight under the layer's name. Empty for an architecture
    of its own, whose layers have no counterpart.
    """
    kept = {name: weight for name, weight in model.named_parameters() if weight.dim() > 1}
    ratios, found = {}, False
    for name, weight in dense.named_parameters():
        if weight.dim() > 1:
            layer = name.removesuffix(".weight")
            inside = (other for other in kept if other.startswith(f"{layer}.") and kept[other].dim() == weight.dim())
            counterpart = kept.get(name, kept.get(next(inside, "")))
            found |= counterpart is not None
            ratios[layer] = 0.0 if counterpart is None else int(counterpart.count_nonzero()) / weight.numel()
    return ratios if found else {}


def macs(model: nn.Module, input_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one forward pass of one example (half of the FLOPs that PyTorch's counter gives)."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    probe = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        probe(torch.zeros(1, *input_shape, device=device))
    return counter.get_total_flops() // 2


@torch.no_grad()
def latency(
    models: dict[str, nn.Module], input_shape: tuple[int, int, int], *, batch_size: int, runs: int = 50
) -> dict[str, Any]:
    """Median and interquartile range of the forward time of several networks, measured in turns.

    Args:
        models: Networks by name; they are run one after the other in every round, so that drift hits all alike.
        input_shape: (channels, height, width).
        batch_size: Examples per forward pass.
        runs: Rounds after two of warm-up.
    """
    device = next(next(iter(models.values())).parameters()).device
    x = torch.zeros(batch_size, *input_shape, device=device).contiguous(memory_format=torch.channels_last)
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(runs + 2):
        for name, model in models.items():
            _synchronize(device)
            started = time.perf_counter()
            model.eval()(x)
            _synchronize(device)
            if number >= 2:
                times[name].append((time.perf_counter() - started) * 1e3)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    summary = {key: _quartiles(torch.tensor(values)) for key, values in times.items()}
    return {"batch_size": batch_size, "threads": torch.get_num_threads(), "device": name, **summary}


def _quartiles(values: Tensor) -> dict[str, float]:
    low, median, high = torch.quantile(values, torch.tensor([0.25, 0.5, 0.75])).tolist()
    return {"median_ms": round(median, 4), "iqr_ms": round(high - low, 4)}


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
