"""Bytes that decode to the very weights: Huffman codes, sparse positions, shared values; and the pruning before."""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_networks import plain
from tasks import make_task
from torch import nn

from baselines.deep_compression import fit as deep_compression
from baselines.deep_compression.compression import code_lengths, decode_layer, encode_layer, huffman, unhuffman
from baselines.deep_compression.fit import fit, magnitude_masks
from baselines.deep_compression.sharing import cluster, share, unshare


@settings(max_examples=60, deadline=None)
@given(arrays(np.int64, st.integers(0, 200), elements=st.integers(0, 300)))
def test_huffman_codes_decode_to_the_same_symbols(symbols):
    assert np.array_equal(unhuffman(huffman(symbols)), symbols)


def test_code_lengths_are_optimal_and_prefix_free():
    counts = np.array([45, 13, 12, 16, 9, 5])  # Cormen et al., section 15.3: 224 bits per 100 symbols
    lengths = code_lengths(counts)
    assert (counts * lengths).sum() == 224
    assert (0.5**lengths).sum() == 1


def test_a_skewed_stream_takes_about_its_entropy():
    symbols = np.random.default_rng(0).choice(4, 20_000, p=[0.85, 0.05, 0.05, 0.05])
    share = np.bincount(symbols) / len(symbols)
    entropy = -(share * np.log2(share)).sum()
    bits = 8 * (len(huffman(symbols)) - len(huffman(np.arange(4))))
    assert entropy * len(symbols) <= bits <= (entropy + 0.5) * len(symbols)


@pytest.mark.parametrize("gap_bits", [1, 3, 8])
@pytest.mark.parametrize("density", [0.0, 0.01, 0.3, 1.0])
def test_an_encoded_layer_decodes_bit_for_bit(gap_bits, density):
    generator = torch.Generator().manual_seed(0)
    codebook = torch.randn(16, generator=generator)
    assignment = torch.randint(1, 17, (8, 5, 3, 3), generator=generator)
    assignment *= torch.rand(assignment.shape, generator=generator) < density
    weight = torch.cat([torch.zeros(1), codebook])[assignment]
    assert torch.equal(decode_layer(encode_layer(assignment, codebook, gap_bits=gap_bits)), weight)


def test_k_means_ends_where_every_value_is_nearest_to_its_own_centre():
    values = torch.randn(500, generator=torch.Generator().manual_seed(0))
    number = cluster(values, 8)
    centres = torch.stack([values[number == index].mean() for index in range(int(number.max()) + 1)])
    assert len(centres) == 8 and centres.diff().gt(0).all()
    assert torch.equal((values[:, None] - centres).abs().argmin(1), number)


def test_few_distinct_values_get_a_cluster_each():
    values = torch.tensor([5.0, -1.0, 5.0, 0.0, -1.0])
    assert cluster(values, 8).tolist() == [2, 0, 2, 1, 0]
    assert cluster(torch.ones(4), 8).tolist() == [0] * 4


def test_shared_weights_stay_shared_and_get_the_sum_of_their_gradients():
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.2, 0.0, -3.0]]))
    share(layer, torch.tensor([[True, True, False, True]]), 2)
    assert layer.weight[0].tolist() == pytest.approx([1.1, 1.1, 0.0, -3.0])
    layer(torch.tensor([[1.0, 2.0, 4.0, 8.0]])).sum().backward()
    assert layer.parametrizations.weight.original.grad.tolist() == [8.0, 3.0]
    assignment, codebook = unshare(layer)
    assert assignment.tolist() == [[2, 2, 0, 1]] and codebook.tolist() == pytest.approx([-3.0, 1.1])
    assert list(layer.state_dict()) == ["weight"] and isinstance(layer.weight, nn.Parameter)


def weights():
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(6, 5, generator=generator), "b": 10 * torch.randn(7, 10, generator=generator)}


def test_global_pruning_keeps_exactly_the_largest_weights_of_all():
    masks = magnitude_masks(weights(), 80)
    kept = torch.cat([weights()[name][mask].abs() for name, mask in masks.items()])
    dropped = torch.cat([weights()[name][~mask].abs() for name, mask in masks.items()])
    assert len(kept) == 80 and kept.min() > dropped.max()


def test_layerwise_pruning_keeps_the_same_share_of_each_layer():
    masks = magnitude_masks(weights(), 40, layerwise=True)
    assert [int(mask.sum()) for mask in masks.values()] == [12, 28]
    for name, mask in masks.items():
        assert weights()[name][mask].abs().min() > weights()[name][~mask].abs().max()


def test_a_layer_that_would_vanish_is_named():
    with pytest.raises(ValueError, match=r"layer 'a' would lose all its weights: .* layerwise: true"):
        magnitude_masks(weights(), 3)


def test_pruned_weights_stay_zero_and_the_others_move(tmp_path):
    dense = plain()
    start = copy.deepcopy(dense)
    pruned = fit(dense, make_task(tmp_path, epochs=3), prune_ratio=0.8)
    names = [name for name, p in start.named_parameters() if p.dim() > 1]
    total = sum(start.get_parameter(name).numel() for name in names)
    left = sum(int(pruned.get_parameter(name).count_nonzero()) for name in names)
    assert left == int(total * 0.2 + 1e-9)
    masks = magnitude_masks({name: start.get_parameter(name) for name in names}, left)
    for name in names:
        assert torch.equal(pruned.get_parameter(name) != 0, masks[name])
        assert not torch.equal(pruned.get_parameter(name)[masks[name]], start.get_parameter(name)[masks[name]])


def test_convolutions_alone_can_be_pruned(tmp_path):
    network = fit(plain(), make_task(tmp_path, epochs=1), prune_ratio=0.5, linear=False)
    assert network[12].weight.all() and network[14].weight.all() and not network[3].weight.all()


def test_as_many_parameters_are_left_as_in_the_cell_compared_with(tmp_path):
    metrics = tmp_path / "metrics.json"
    metrics.write_text(json.dumps({"status": "done", "error": None, "size": {"kept_ratio": 0.4}}))
    network = fit(plain(), make_task(tmp_path, epochs=1, inputs={"edropout": metrics}))
    total = sum(p.numel() for p in network.parameters())
    left = sum(int(p.count_nonzero()) if p.dim() > 1 else p.numel() for p in network.parameters())
    assert left == round(0.4 * total)


def test_the_compressed_bytes_hold_the_very_network(tmp_path, monkeypatch):
    layers = []

    def keep(*arguments, **options):
        layers.append(encode_layer(*arguments, **options))
        return layers[-1]

    monkeypatch.setattr(deep_compression, "encode_layer", keep)
    task = make_task(tmp_path, epochs=4)
    network = fit(plain(), task, prune_ratio=0.7, share_weights=True, conv_bits=4, linear_bits=3)
    shared = [module for module in network if isinstance(module, nn.Conv2d | nn.Linear)]
    for module, data in zip(shared, layers, strict=True):
        assert torch.equal(decode_layer(data), module.weight)
        assert len(module.weight.unique()) <= (16 if isinstance(module, nn.Conv2d) else 8) + 1
    rest = sum(
        value.numel() * value.element_size()
        for name, value in network.state_dict().items()
        if not any(value.data_ptr() == module.weight.data_ptr() for module in shared)
    )
    assert task.run.logged["compressed_bytes"] == sum(map(len, layers)) + rest
    assert task.run.epoch == 4 and set(network.state_dict()) == set(plain().state_dict())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "deep_compression needs a prune_ratio, or edropout=EDROPOUT"),
        ({"prune_ratio": 1}, "less than 1, not 1"),
        ({"prune_ratio": 0.5, "conv_bits": 17}, "conv_bits must be at least 1 and at most 16"),
    ],
)
def test_bad_hyperparameters_are_refused_before_training(tmp_path, options, sentence):
    task = make_task(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        fit(plain(), task, **options)
    assert task.run.phase == 0


def test_a_failed_or_too_small_cell_is_named(tmp_path):
    metrics = tmp_path / "metrics.json"
    task = make_task(tmp_path, inputs={"edropout": metrics})
    metrics.write_text(json.dumps({"status": "failed", "error": "the loss became nan", "size": None}))
    with pytest.raises(ValueError, match=r"metrics.json is the result of a failed cell \(the loss became nan\)"):
        fit(plain(), task)
    metrics.write_text(json.dumps({"status": "done", "error": None, "size": {"kept_ratio": 0.01}}))
    with pytest.raises(ValueError, match=r"a kept ratio of 1\.00% is less than the biases and norms"):
        fit(plain(), task)
