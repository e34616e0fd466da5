"""A checkpoint comes back bit for bit, and a damaged one is never used."""

import math

import pytest
import torch

from harness.training import checkpoint

HASH = "0123456789abcdef"
STATE = {
    "parts": {
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.5)}]}
    },
    "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
    "empty": torch.zeros(0, 4),
    "flag": True,
    "nothing": None,
    "text": "ü",
}


def equal(left, right):
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return type(left) is type(right) and all(map(equal, left, right))
    return left == right


def test_round_trip_keeps_types_keys_and_bits(tmp_path):
    checkpoint.save(tmp_path / "c", STATE, key=HASH)
    assert equal(checkpoint.load(tmp_path / "c", key=HASH), STATE)


def test_tensors_that_share_memory_are_stored_apart(tmp_path):
    base = torch.arange(4.0)
    checkpoint.save(tmp_path / "c", {"a": base, "b": base[1:], "t": base.reshape(2, 2).T}, key=HASH)
    state = checkpoint.load(tmp_path / "c", key=HASH)
    assert state["b"].tolist() == [1, 2, 3] and state["t"].tolist() == [[0, 2], [1, 3]]


def test_optimizer_state_round_trip_continues_with_the_same_bits(tmp_path):
    def steps(weight, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    one = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    first = torch.optim.Adadelta([one])
    steps(one, first, 3)
    checkpoint.save(tmp_path / "c", {"w": one, "o": first.state_dict()}, key=HASH)
    steps(one, first, 2)
    state = checkpoint.load(tmp_path / "c", key=HASH)
    two = torch.nn.Parameter(state["w"])
    second = torch.optim.Adadelta([two])
    second.load_state_dict(state["o"])
    steps(two, second, 2)
    assert torch.equal(one, two)


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_is_used(tmp_path, damage):
    path = tmp_path / "c"
    checkpoint.save(path, {"epoch": 1, "w": torch.ones(3)}, key=HASH)
    checkpoint.save(path, {"epoch": 2, "w": torch.ones(3)}, key="f" * 16 if damage == "foreign" else HASH)
    content = bytearray(path.read_bytes())
    if damage == "truncate":
        path.write_bytes(content[:-5])
    elif damage == "flip":
        content[-3] ^= 1
        path.write_bytes(content)
    elif damage == "empty":
        path.write_bytes(b"")
    warnings = []
    assert checkpoint.load_newest(path, key=HASH, warn=warnings.append)["epoch"] == 1
    assert len(warnings) == 1 and str(path) in warnings[0]


def test_without_an_intact_checkpoint_there_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path / "c", key=HASH, warn=print) is None


def test_what_cannot_be_stored_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a set"):
        checkpoint.save(tmp_path / "c", {"x": {1, 2}}, key=HASH)
    assert not any(tmp_path.iterdir())


def test_special_floats_survive(tmp_path):
    checkpoint.save(tmp_path / "c", {"x": [math.inf, -0.0]}, key=HASH)
    values = checkpoint.load(tmp_path / "c", key=HASH)["x"]
    assert values[0] == math.inf and math.copysign(1, values[1]) == -1


def test_a_damaged_file_never_takes_the_place_of_a_good_one(tmp_path, monkeypatch):
    path = tmp_path / "c"
    checkpoint.save(path, {"epoch": 1}, key=HASH)
    checkpoint.save(path, {"epoch": 2}, key=HASH)
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    assert checkpoint.load_newest(path, key=HASH, warn=print)["epoch"] == 1
    assert (tmp_path / "c.damaged").exists()

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.machine.files.os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(path, {"epoch": 3}, key=HASH)
    assert checkpoint.load_newest(path, key=HASH, warn=print)["epoch"] == 1


def test_a_checkpoint_of_something_else_is_named_as_that_and_left_where_it_is(tmp_path):
    said = []
    checkpoint.save(tmp_path / "c", {"epoch": 1}, key="one")
    assert checkpoint.load_newest(tmp_path / "c", key="other", warn=said.append) is None
    assert "belongs to another configuration, code or data" in said[0] and (tmp_path / "c").exists()
