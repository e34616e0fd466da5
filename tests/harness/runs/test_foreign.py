"""A method in another language: started by its first line, its result checked, and stamped with what it was made of."""

import json
import subprocess
import sys

import pytest
from test_run import CELL, ROOT

from harness.plan import made_of
from harness.runs import result

WRITES = """#!/bin/sh
echo "started with $4"
value() { printf '%s' "$1" | sed -n "s/.*\\"$2\\": \\"\\{0,1\\}\\([^\\",}]*\\).*/\\1/p"; }
printf '{"schema": 1, "protocol": 1, "dataset": "digits", "model": "resnet8", "method": "l1", "seed": SEED,
 "config_hash": "%s", "status": "done", "error": null, "test": {"loss": 2.3, "top1": 0.1, "examples": 100},
 "size": {"parameters": 0, "dense_parameters": 1, "nonzero": 0, "kept_ratio": 0}}' \\
 "$(value "$1" config_hash)" > "$3"
"""


def run(folder, text):
    """The result of a cell whose method is a program with this text, and what the supervisor said."""
    program, extra = folder / "guess.sh", folder / "extra.csv"
    program.write_text(text)
    extra.write_text("1")
    arguments = ["--cell", json.dumps(CELL), "--data", "data.safetensors", "--input", f"extra={extra}"]
    arguments += ["--out", str(folder / "cell" / "metrics.json"), "--log", str(folder / "job.txt")]
    command = [sys.executable, "-m", "harness.run", str(program), *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return result.read(folder / "cell" / "metrics.json"), answer.stderr


def test_its_result_is_stamped_with_program_rule_architecture_and_inputs(tmp_path):
    metrics, _ = run(tmp_path, WRITES.replace("SEED", "1"))
    assert metrics["status"] == "done" and metrics["test"]["top1"] == 0.1
    assert made_of.objection(CELL, metrics, made_of.Present()) is None
    assert {str(tmp_path / "guess.sh"), "workflow/baselines/l1.smk"} < metrics["made_of"]["code"].keys()
    assert f"started with extra={tmp_path}/extra.csv" in (tmp_path / "cell" / "log.txt").read_text()
    assert [path.name for path in (tmp_path / "cell").glob("[!.]*.json")] == ["metrics.json"]
    run(tmp_path, WRITES.replace("SEED", "1"))
    assert (tmp_path / "cell" / "log.txt").read_text().count("started with") == 2  # What stood there is kept.
    (tmp_path / "extra.csv").write_text("2")
    assert made_of.objection(CELL, metrics, made_of.Present()).startswith("was made from another ")
    (tmp_path / "guess.sh").write_text(WRITES + "\n")
    assert made_of.objection(CELL, metrics, made_of.Present()).startswith("was made with another ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (WRITES.replace("SEED", "7"), r"guess.sh wrote seed 7 instead of 1"),
        (WRITES.replace("SEED", "1").replace('"top1": 0.1', '"top1": 2'), "draft.json: test"),
        ("#!/bin/sh\nexit 3\n", "exit code 3"),
        ("#!/bin/sh\n", "draft.json cannot be read"),
        ("print(1)\n", "no first line '#!'"),
    ],
)
def test_what_is_wrong_with_it_is_the_sentence_of_a_failed_cell(tmp_path, text, sentence):
    metrics, said = run(tmp_path, text)
    assert metrics["status"] == "failed" and sentence in metrics["error"] and sentence in said
    assert sentence in (tmp_path / "job.txt").read_text()
    assert not (tmp_path / "cell" / "draft.json").exists()
