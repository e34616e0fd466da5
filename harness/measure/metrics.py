"""What the harness measures on the network that a method returns; no method measures itself."""

from __future__ import annotations

import contextlib
import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from harness.kinds import Kind
from harness.kinds.classification import KIND as CLASSIFICATION


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
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    kind: Kind = CLASSIFICATION,
    *,
    val: Mapping[str, float] | None = None,
    combine: Callable[[Mapping[str, float]], Mapping[str, float]] = dict,
) -> dict[str, Any]:
    """The kind's metrics over all examples, in evaluation mode.

    Args:
        model: From inputs to what the kind's loss takes; its training mode is restored.
        batches: Pairs of inputs and targets, in the order in which the kind carries something from batch to batch.
        kind: What is measured.
        val: The evaluation of the validation set, for what the kind may choose there.
        combine: Makes means over all processes of the means over this one's examples, `examples` among them.

    Returns:
        The metrics, and `examples`: what they are means over.

    Raises:
        EvaluationMemoryError: a batch does not fit into the GPU's memory.
    """
    was_training = model.training
    model.eval()
    totals: dict[str, float] = {}
    examples, carry = 0, kind.carry(model)
    with carry.attached():
        for x, y in batches:
            outputs = model(laid_out(x)).float()
            for name, value in kind.sums(outputs, y).items():
                totals[name] = totals.get(name, 0) + value
            examples += y.numel()
            carry.advance()
    model.train(was_training)
    means = combine({**{name: total / examples for name, total in totals.items()}, "examples": examples})
    summary = kind.summary({name: means[name] for name in totals}, val)
    return {**summary, "examples": int(means["examples"])}


def laid_out(x: Tensor) -> Tensor:
    """Images with their channels last, as convolutions are fastest; other inputs as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


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


def macs(model: nn.Module, input_shape: tuple[int, ...], kind: Kind = CLASSIFICATION) -> int:
    """Multiply-accumulates of one forward pass of one example (half of the FLOPs that PyTorch's counter gives)."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(model.parameters()).device
    probe = copy.deepcopy(model).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad(), _recurrent_layers_as_products():
        probe(kind.example(input_shape, device=device))
    return counter.get_total_flops() // 2 // kind.examples_in(input_shape)


@contextlib.contextmanager
def _recurrent_layers_as_products() -> Iterator[None]:
    """Without the libraries' own recurrent layers, each of which is one call that the counter does not know."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
        warnings.simplefilter("ignore", UserWarning)  # About TF32 on GPUs that are not there.
        with torch.backends.mkldnn.flags(enabled=False):
            yield


@torch.no_grad()
def latency(
    models: dict[str, nn.Module],
    input_shape: tuple[int, ...],
    kind: Kind = CLASSIFICATION,
    *,
    batch_size: int,
    runs: int = 50,
) -> dict[str, Any]:
    """Median and interquartile range of the forward time of several networks, measured in turns.

    Args:
        models: Networks by name; they are run one after the other in every round, so that drift hits all alike.
        input_shape: Of one input.
        kind: Says what an input is.
        batch_size: Inputs per forward pass.
        runs: Rounds after two of warm-up.
    """
    device = next(next(iter(models.values())).parameters()).device
    x = laid_out(kind.example(input_shape, batch_size, device))
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
