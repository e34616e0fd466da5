"""A result file is read as it was written, or refused with a sentence."""

import json

import pytest
from test_run import CELL

from harness.runs import result

DONE = {
    **result.header({**CELL, "config": {}}),
    "test": {"loss": 0.5, "top1": 0.75, "examples": 4},
    "size": {"parameters": 5, "dense_parameters": 10, "nonzero": 5, "kept_ratio": 0.5},
}


@pytest.fixture
def written(tmp_path):
    result.write(tmp_path / "metrics.json", DONE)
    return tmp_path / "metrics.json"


def test_what_is_written_is_read(written):
    metrics = result.read(written)
    assert {key: metrics[key] for key in DONE} == DONE
    before = written.read_bytes()
    result.write(written, metrics)
    assert written.read_bytes() == before


@pytest.mark.parametrize(
    ("section", "key", "value"), [("test", "loss", 0.001), ("test", "top1", 1.0), ("size", "nonzero", 4)]
)
def test_an_edit_by_hand_is_refused_however_plausible(written, section, key, value):
    metrics = json.loads(written.read_text())
    metrics[section][key] = value
    written.write_text(json.dumps(metrics))
    with pytest.raises(result.ResultError, match=r"metrics\.json was changed after it had been written"):
        result.read(written)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1e999"])
def test_no_number_is_refused(written, number):
    written.write_text(written.read_text().replace('"loss": 0.5', f'"loss": {number}'))
    with pytest.raises(result.ResultError, match="is not a number"):
        result.read(written)


def test_a_result_without_a_checksum_is_read(written):
    metrics = json.loads(written.read_text())
    del metrics["checksum"]
    written.write_text(json.dumps(metrics))
    assert result.read(written) == metrics
