"""Deep Compression: magnitude pruning and retraining; as options weight sharing and Huffman coding."""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from baselines.deep_compression.compression import encode_layer
from baselines.deep_compression.sharing import share, unshare
from harness.pruning.inherited import kept_ratio_of
from harness.pruning.structured import check_ratio, kept_count, largest
from harness.pruning.unstructured import number_to_keep, prunable_weights, train_masked
from harness.training.task import Task


def fit(
    model: nn.Module,
    task: Task,
    *,
    prune_ratio: Annotated[float, "[0, 1)"] | None = None,
    layerwise: bool = False,
    linear: bool = True,
    share_weights: bool = False,
    conv_bits: Annotated[int, "[1, 16]"] = 8,
    linear_bits: Annotated[int, "[1, 16]"] = 5,
) -> nn.Module:
    """Prune single weights by magnitude, retrain the others (Han et al., arXiv:1506.02626), optionally compress.

    Args:
        model: The trained dense network.
        task: Data, recipe and loop; `task.inputs["edropout"]` unless `prune_ratio` is given.
        prune_ratio: Fraction of the weights to prune. None prunes until as many of all parameters are left as in
            the EDropout cell of the same dataset, model and seed: the comparison of its paper.
        layerwise: The same fraction of every layer, instead of one threshold for the whole network.
        linear: Prune the linear layers too, not only the convolutions.
        share_weights: Let the kept weights of a layer share few values (k-means), train these for the last quarter of
            what is left of the budget, and measure the bytes after Huffman coding (Han et al., ICLR 2016,
            arXiv:1510.00149).
        conv_bits: Base-2 logarithm of the number of shared values of a convolution, and of the longest gap.
        linear_bits: The same of a linear layer.

    Returns:
        The network with exact zeros.

    Raises:
        ValueError: a ratio outside [0, 1), no ratio at all, a layer without weights, bits outside [1, 16].
    """
    for name, bits in (("conv_bits", conv_bits), ("linear_bits", linear_bits)):
        if not 1 <= bits <= 16:
            raise ValueError(f"{name} must be at least 1 and at most 16, not {bits}")
    weights = prunable_weights(model, linear=linear)
    masks = magnitude_masks(weights, _number_to_keep(model, weights, task, prune_ratio), layerwise=layerwise)
    if not share_weights:
        return train_masked(model, task, masks)
    train_masked(model, task, masks, epochs=task.epochs_left - task.epochs_left // 4)
    return compress(model, task, masks, conv_bits=conv_bits, linear_bits=linear_bits)


def _number_to_keep(model: nn.Module, weights: dict[str, nn.Parameter], task: Task, prune_ratio: float | None) -> int:
    total = sum(weight.numel() for weight in weights.values())
    if prune_ratio is not None:
        check_ratio(prune_ratio)
        return kept_count(total, prune_ratio)
    if "edropout" not in task.inputs:
        raise ValueError("deep_compression needs a prune_ratio, or edropout=EDROPOUT among the inputs of its rule")
    return number_to_keep(model, weights, kept_ratio_of(task.inputs["edropout"]))


def magnitude_masks(weights: dict[str, Tensor], count: int, *, layerwise: bool = False) -> dict[str, Tensor]:
    """True for the weights with the largest absolute values: `count` in all, or that share of each layer.

    Raises:
        ValueError: a layer would lose all its weights.
    """
    sizes = {name: weight.numel() for name, weight in weights.items()}
    magnitudes = [weight.detach().abs().flatten().cpu() for weight in weights.values()]
    if layerwise:
        share = count / sum(sizes.values())
        flat = [largest(scores, int(len(scores) * share + 1e-9)) for scores in magnitudes]
    else:
        flat = largest(torch.cat(magnitudes), count).split(list(sizes.values()))
    for name, mask in zip(weights, flat, strict=True):
        if not mask.any():
            advice = "choose a smaller prune_ratio" if layerwise else "choose a smaller prune_ratio or layerwise: true"
            raise ValueError(f"layer '{name.removesuffix('.weight')}' would lose all its weights: {advice}")
    return {
        name: mask.reshape(weight.shape).to(weight.device)
        for (name, weight), mask in zip(weights.items(), flat, strict=True)
    }


def compress(model: nn.Module, task: Task, masks: dict[str, Tensor], *, conv_bits: int, linear_bits: int) -> nn.Module:
    """Share the kept weights' values, train these for the rest of the budget, and log the bytes of the whole network.

    The bytes are those of an encoding that can be decoded: positions and shared values under Huffman codes, and
    biases, norms and running statistics as they are.
    """
    bits = {}
    for name, mask in masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        bits[layer] = linear_bits if isinstance(layer, nn.Linear) else conv_bits
        share(layer, mask, 2 ** bits[layer])
    task.train(model)
    encoded = [encode_layer(*unshare(layer), gap_bits=count) for layer, count in bits.items()]
    rest = [tensor for name, tensor in model.state_dict().items() if name not in masks]
    task.log(compressed_bytes=sum(map(len, encoded)) + sum(tensor.numel() * tensor.element_size() for tensor in rest))
    return model
