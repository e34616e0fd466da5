"""What cannot be done is one sentence, before anything has been done."""

import subprocess
import sys

import pytest
from projects import CELL, environment


def refused(project, sentence, *arguments):
    before = {path: path.stat().st_mtime_ns for path in project.folder.glob("results/**/metrics.json")}
    code, output = project.snakemake(*arguments)
    assert code != 0 and sentence in output, output
    # One sentence of ours after what Snakemake says of itself, and no line of our code.
    assert "Traceback" not in output and 'File "' not in output and "common.smk" not in output
    assert before == {path: path.stat().st_mtime_ns for path in project.folder.glob("results/**/metrics.json")}


def test_a_key_that_stands_twice_is_named_with_its_line(fresh):
    path = fresh.folder / "config" / "config.yaml"
    path.write_text(path.read_text() + "build: []\n")
    line = len(path.read_text().splitlines())
    refused(fresh, f"config.yaml, line {line}: config key 'build' stands in line")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-n", "quik"], "no table and no rule is called 'quik': did you mean 'quick'?"),
        (["-n", f"{CELL}/l2/seed1/metrics.json"], f"{CELL}/l2/seed1 names method 'l2', which is not defined"),
        (["--cores", "0"], "--cores (or --jobs) is 0, and nothing runs with less than 1"),
        (["-n", "--jobs", "0"], "--jobs is 0"),
    ],
)
def test_what_cannot_be_asked_for_is_one_sentence_at_once(fresh, arguments, sentence):
    refused(fresh, sentence, *arguments)


def test_a_hyper_parameter_out_of_its_range_is_named_by_a_dry_run(fresh):
    config = fresh.config
    config["methods"]["l1"] = {"prune_ratio": 1.5}
    fresh.configure(config)
    refused(fresh, "config key 'methods.l1.prune_ratio' is 1.5: it must be less than 1", "-n")


def test_a_wrong_key_is_named(fresh):
    config = fresh.config
    config["recipes"]["quick"]["epoch"] = 3
    fresh.configure(config)
    refused(fresh, "config key 'recipes.quick.epoch' is unknown: did you mean 'epochs'?")


@pytest.mark.parametrize("key", ["data", "build", "tables"])
def test_a_missing_key_is_named(fresh, key):
    config = fresh.config
    del config[key]
    fresh.configure(config)
    refused(fresh, f"config key '{key}' is missing")


def test_a_wrong_hyper_parameter_is_named(fresh):
    config = fresh.config
    config["methods"]["l1"] = {"prune_ration": 0.5}
    fresh.configure(config)
    refused(fresh, "did you mean 'prune_ratio'")


def test_a_method_without_a_rule_is_named(fresh):
    fresh.add_method("thinnest")
    refused(fresh, "table 'quick' names method 'thinnest': add workflow/baselines/thinnest.smk")


def test_an_unknown_architecture_is_named(fresh):
    config = fresh.config
    config["tables"]["quick"]["models"] = ["resnet8", "resnet19"]
    fresh.configure(config)
    refused(fresh, "resnet19")


def test_a_missing_dataset_is_named_with_its_place(fresh):
    config = fresh.config
    config["datasets"]["mnist-mini"] = {"source": "mnist", "recipe": "quick"}
    config["tables"]["quick"]["datasets"].append("mnist-mini")
    config["data"] = {"root": "nowhere", "download": False}
    fresh.configure(config)
    refused(fresh, "train-images-idx3-ubyte")


def test_the_dry_run_needs_no_torch(fresh):
    fresh.write("poison/torch.py", "raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "quick"]
    poisoned = {**environment(), "PYTHONPATH": str(fresh.folder / "poison")}
    answer = subprocess.run(command, cwd=fresh.folder, env=poisoned, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr
