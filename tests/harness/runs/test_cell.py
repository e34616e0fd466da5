"""The trainer: seeds of its own for everything, dense weights that fit, errors as sentences."""

import pytest
import torch
from torch import nn

from harness.runs import cell, measured
from harness.training import checkpoint


def test_methods_share_data_and_initialisation_and_nothing_else():
    seeds = {
        cell.derived_seed("digits", 1),
        cell.derived_seed("digits", "resnet8", 1),
        cell.derived_seed("digits", "resnet8", "l1", 1),
        cell.derived_seed("digits", "resnet8", "l1", 2),
        cell.derived_seed("digits", "resnet8", "random", 1),
        cell.derived_seed("mnist", "resnet8", "l1", 1),
    }
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "dense network to start from failed"),
        (b"no weights", "is damaged"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(3)}, "another architecture than linear"),
        ({"weight": torch.ones(2, 2)}, "another architecture than linear"),
    ],
)
def test_dense_weights_that_do_not_fit_are_named_before_training(tmp_path, content, sentence):
    path = tmp_path / "start.safetensors"
    if isinstance(content, dict):
        checkpoint.save_weights(path, content)
    else:
        path.write_bytes(content or b"")
    with pytest.raises(cell.CellError, match=sentence):
        cell.load_dense(nn.Linear(2, 2), path, name="linear")


def test_dense_weights_are_loaded_bit_for_bit(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    checkpoint.save_weights(tmp_path / "start.safetensors", source.state_dict())
    cell.load_dense(target, tmp_path / "start.safetensors", name="linear")
    assert torch.equal(source.weight, target.weight)


def test_a_flipped_byte_in_dense_weights_is_never_trained_from(tmp_path):
    path = tmp_path / "start.safetensors"
    checkpoint.save_weights(path, nn.Linear(3, 2).state_dict())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(cell.CellError, match=r"checksum does not match.*delete it"):
        cell.load_dense(nn.Linear(3, 2), path, name="linear")


def test_a_file_without_fit_is_named(tmp_path):
    (tmp_path / "mine.py").write_text("def train():\n    pass\n")
    with pytest.raises(cell.CellError, match=r"mine.py has no function fit"):
        cell.load_fit(tmp_path / "mine.py")


def test_errors_become_one_line():
    assert cell.sentence(ValueError("a\n  b"), {}) == "a b"
    assert cell.sentence(KeyError("x"), {}) == "KeyError: 'x'"


def test_out_of_memory_says_which_batch_size_to_set(monkeypatch):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe = {"batch_size": 128}
    assert "set batch_size in the dataset's recipe in config.yaml to 64, now it is 128" in cell.sentence(
        torch.OutOfMemoryError("CUDA out of memory"), recipe
    )
    network = nn.Linear(1, 1)
    monkeypatch.setattr(network, "forward", full)
    with pytest.raises(RuntimeError) as caught:
        cell.metrics.evaluate(network, [(torch.zeros(1, 1, 1, 1), torch.zeros(1))])
    assert "set eval_batch_size in the dataset's recipe in config.yaml to 250, now it is 500" in cell.sentence(
        caught.value, recipe
    )


def test_latency_is_measured_on_a_smaller_batch_where_memory_ends(monkeypatch):
    def latency(networks, input_shape, kind, *, batch_size):
        if batch_size > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"batch_size": batch_size}

    monkeypatch.setattr(measured.metrics, "latency", latency)
    assert measured.latency({}, (1, 8, 8)) == {"batch_size": 8}


def test_step_time_is_the_mean_over_all_steps():
    times = [(1.0, 0.5, 10), (3.0, 2.5, 10), (0.1, 0.1, 1)]
    history = [dict(zip(("seconds", "cpu_seconds", "steps"), row, strict=True)) for row in times]
    assert measured.training_time(history) == {"train_seconds": 4.1, "train_cpu_seconds": 3.1, "step_ms": 195.2381}
