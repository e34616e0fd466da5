"""Whatever config.yaml, a result file, a checkpoint or a pruning state holds: it works or there is one clear sentence.

EDROPOUT_FUZZ=2500 makes the full run of at least 10,000 cases; the default is a tenth of it.
"""

import copy
import json
import os
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_networks import residual

from edropout import EDropout, Units
from edropout.subnetworks.removal import mask_, prune
from harness.plan import configuration, grid
from harness.runs import result
from harness.training import checkpoint

ROOT = Path(__file__).resolve().parents[1]
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
RULES = {configuration.rule_of(method) for method in CONFIG["methods"]}
CASES = int(os.environ.get("EDROPOUT_FUZZ", "250"))
fuzzed = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
names = st.text(max_size=8)
yaml_keys = names | st.integers() | st.booleans() | st.none() | st.dates()


def nested(leaves, keys):
    """Values, lists of them and dictionaries of them."""
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


json_values = nested(scalars, names)
yaml_values = nested(scalars | st.dates() | st.binary(max_size=4), yaml_keys)


def places(tree, path=()):
    """Paths of all entries of a nested dictionary or list."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def mutated(tree, data, keys=names, values=json_values):
    """The tree with a few of its entries replaced, removed or added."""
    tree = copy.deepcopy(tree)
    for _ in range(data.draw(st.integers(1, 3))):
        *parents, last = data.draw(st.sampled_from(list(places(tree))))
        section = tree
        for key in parents:
            section = section[key]
        action = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            section[last] = data.draw(values)
        elif action == "remove":
            del section[last]
        elif isinstance(section, dict):
            section[data.draw(keys)] = data.draw(values)
        if not list(places(tree)):
            break
    return tree


@fuzzed
@given(st.data())
def test_any_configuration_makes_cells_or_one_sentence(data):
    config = mutated(CONFIG, data, yaml_keys, yaml_values)
    try:
        configuration.check(config, RULES)
    except configuration.ConfigError as error:
        assert str(error) and "\n" not in str(error)
    else:
        for table in config["tables"]:
            assert all(len(cell["config_hash"]) == 16 for cell in grid.cells(config, table)[:5])


RESULT = {
    **result.header(grid.cell(CONFIG, dataset="digits", model="resnet8", method="l1", seed=1)),
    "test": {"loss": 0.1, "top1": 0.9, "top3": 0.95, "top5": 1.0, "examples": 10},
    "size": {"parameters": 5, "dense_parameters": 10, "nonzero": 5, "kept_ratio": 0.5},
    "time": {"seconds": 1.0},
    "extra": {"kept_units": 0.5},
}


@fuzzed
@given(st.data())
def test_any_result_file_is_valid_or_named_in_one_sentence(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "metrics.json"
    text = json.dumps(mutated(RESULT, data)) if data.draw(st.booleans()) else data.draw(st.text(max_size=60))
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        metrics = result.read(path)
    except result.ResultError as error:
        assert str(path) in str(error)
    else:
        assert metrics["status"] == "failed" or 0 <= metrics["test"]["top1"] <= 1


states = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
)


@fuzzed
@given(state=states, size=st.integers(0, 40), flip=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_checkpoint_comes_back_and_any_flipped_bit_is_seen(tmp_path_factory, state, size, flip, bit):
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    path.unlink(missing_ok=True)
    whole = {"state": state, "tensor": torch.arange(size)}
    checkpoint.save(path, whole, key="0" * 16)
    loaded = checkpoint.load(path, key="0" * 16)
    assert loaded["state"] == state and torch.equal(loaded["tensor"], whole["tensor"])
    content = bytearray(path.read_bytes())
    content[flip % len(content)] ^= 1 << bit
    path.write_bytes(content)
    try:
        changed = checkpoint.load(path, key="0" * 16)
    except checkpoint.CheckpointError as error:
        assert str(path) in str(error)
    else:
        # Only a byte that carries nothing, such as padding of the header, may change unseen.
        assert changed["state"] == state and torch.equal(changed["tensor"], whole["tensor"])


NETWORK = residual().double().eval()
UNITS = Units(NETWORK)
IMAGES = torch.randn(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@fuzzed
@given(st.lists(st.booleans(), min_size=UNITS.num_units, max_size=UNITS.num_units))
def test_any_state_gives_a_smaller_network_that_equals_the_masked_one(bits):
    state = UNITS.repair_(torch.tensor(bits))
    kept = UNITS.kept(state)
    masked = copy.deepcopy(NETWORK)
    mask_(masked, kept)
    with torch.no_grad():
        assert torch.allclose(prune(NETWORK, kept, IMAGES)(IMAGES), masked(IMAGES), atol=1e-10)


@fuzzed
@given(length=st.integers(0, 2 * UNITS.num_units))
def test_a_state_of_another_length_is_refused(length):
    state = torch.ones(length, dtype=torch.bool)
    if length == UNITS.num_units:
        assert torch.equal(UNITS.join(UNITS.split(state)), state)
    else:
        with pytest.raises(ValueError, match=f"must have {UNITS.num_units} units"):
            UNITS.split(state)


numbers = st.floats() | st.integers(-10, 10)


@fuzzed
@given(size=st.integers(-3, 12), factor=numbers, rate=numbers, kept=numbers)
def test_any_hyper_parameters_are_accepted_or_refused_in_one_sentence(size, factor, rate, kept):
    try:
        search = EDropout(NETWORK, population_size=size, mutation_factor=factor, crossover_rate=rate, initial_kept=kept)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert size >= 4 and all(0 <= value <= 1 for value in (factor, rate, kept))
        assert search.population.shape == (size, UNITS.num_units)
