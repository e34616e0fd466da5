"""The workflow as its users meet it: a table from one command, new methods by two files, errors in one sentence."""

import json
import os
import re
import shutil
import subprocess
import sys
import time

import examples
import pandas
import pytest
import yaml
from projects import ROOT, SECRET, environment, reduced

from harness.plan import configuration, grid

CELL = "results/digits/resnet8"


def metrics(project, method, seed=1):
    return json.loads((project.folder / CELL / method / f"seed{seed}" / "metrics.json").read_text())


def table(project, name="quick"):
    return pandas.read_csv(project.folder / "results" / "paper" / f"{name}.csv")


def planned(output):
    """Jobs by rule in a dry run."""
    lines = output.split("Job stats:", 1)[-1].splitlines()
    return {words[0]: int(words[1]) for words in map(str.split, lines) if len(words) == 2 and words[1].isdigit()}


def test_the_table_is_rendered_and_its_places_are_printed(project):
    for name in ("quick.csv", "quick.md", "quick.tex", "quick.html", "report.pdf"):
        assert (project.folder / "results" / "paper" / name).stat().st_size > 0
    assert set(table(project)["method"]) >= {"dense", "l1"}


def test_a_run_leaves_result_history_weights_log_and_tracking(project):
    folder = project.folder / CELL / "l1" / "seed1"
    for name in ("metrics.json", "history.csv", "model.safetensors", "log.txt"):
        assert (folder / name).stat().st_size > 0
    assert list(folder.glob("wandb/offline-run-*/run-*.wandb"))
    assert not list(folder.glob("*checkpoint*")) and not list(folder.glob("phase*"))
    assert "epoch 4/4" in (folder / "log.txt").read_text()


def test_no_secret_is_left_in_any_file(project):
    files = [path for path in project.folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert len(files) > 100
    assert not [path for path in files if SECRET.encode() in path.read_bytes() and "tests" not in path.parts]


def test_running_again_does_nothing(project):
    code, output = project.snakemake()
    assert code == 0 and "Nothing to be done" in output


def test_touching_a_method_runs_nothing_and_editing_it_runs_its_cells_alone(fresh):
    method = fresh.folder / "baselines" / "l1.py"
    os.utime(method)
    assert "Nothing to be done" in fresh.snakemake("-n")[1]
    method.write_text(method.read_text() + "\n\nEDITED = True\n")
    _, output = fresh.snakemake("-n")
    assert planned(output).get("l1") == 1 and "dense" not in planned(output)


def test_editing_what_a_method_imports_runs_its_cells_alone(fresh):
    module = fresh.folder / "edropout" / "subnetworks" / "removal.py"
    module.write_text(module.read_text() + "\n\nEDITED = True\n")
    _, output = fresh.snakemake("-n")
    assert planned(output).get("l1") == 1 and "dense" not in planned(output)


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_clock_that_jumps_runs_nothing_again(fresh, hours):
    """What a later cell starts from seems newer than the cell, or the whole table older than its cells."""
    for path in (fresh.folder / CELL / "dense").rglob("*"):
        moment = path.stat().st_mtime + 3600 * hours
        os.utime(path, (moment, moment), follow_symlinks=False)
    assert "Nothing to be done" in fresh.snakemake("-n")[1]


def test_changing_a_hyper_parameter_runs_its_cells_alone(fresh):
    config = fresh.config
    config["methods"]["l1"] = {"prune_ratio": 0.25}
    fresh.configure(config)
    assert planned(fresh.snakemake("-n")[1]).get("l1") == 1 and "dense" not in planned(fresh.snakemake("-n")[1])


def test_changing_a_dataset_runs_its_cells_in_the_same_run(fresh):
    config = fresh.config
    config["datasets"]["digits"]["split_seed"] = 5
    fresh.configure(config)
    assert {"data": 1, "dense": 1, "l1": 1, "collect": 1}.items() <= planned(fresh.snakemake("-n")[1]).items()


def test_a_dataset_that_is_prepared_again_runs_no_cell(fresh):
    (fresh.folder / grid.prepared(fresh.config, "digits")).unlink()
    assert planned(fresh.snakemake("prepare")[1])["data"] == 1
    assert "Nothing to be done" in fresh.snakemake("-n")[1]


def test_the_dry_run_needs_no_torch(fresh):
    fresh.write("poison/torch.py", "raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "quick"]
    poisoned = {**environment(), "PYTHONPATH": str(fresh.folder / "poison")}
    answer = subprocess.run(command, cwd=fresh.folder, env=poisoned, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


NEW_METHOD = '''
"""Halve every weight: a method for a test."""

import torch


def fit(model, task, *, factor=0.5):
    task.train(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(factor)
    return model
'''
NEW_RULE = '''
"""A method for a test."""


use rule cell as {name} with:
    input:
        fit="baselines/{name}.py",
        data=DATA,
        init=DENSE,
    wildcard_constraints:
        method="{name}(-.+)?",
'''


def with_method(project, name, hyperparameters=None):
    config = project.config
    config["methods"][name] = hyperparameters or {}
    config["tables"]["quick"]["methods"].append(name)
    project.configure(config)


def test_a_new_method_is_one_file_one_rule_and_one_line(fresh):
    for path in ("baselines/mine.py", "workflow/baselines/mine.smk"):
        fresh.write(path, examples.file(path))
    with_method(fresh, "mine", {"prune_ratio": 0.5})
    code, output = fresh.snakemake()
    assert code == 0, output
    assert "mine" in set(table(fresh)["method"])
    assert metrics(fresh, "mine")["budget"] == {"dense_epochs": 2, "own_epochs": 2, "total_epochs": 4}
    assert metrics(fresh, "mine")["size"]["kept_ratio"] == pytest.approx(0.52, abs=0.01)


SHELL_METHOD = """#!/bin/sh
cell=$1 out=$3
value() { printf '%s' "$cell" | sed -n "s/.*\\"$1\\": \\"\\{0,1\\}\\([^\\",}]*\\).*/\\1/p"; }
printf '{"schema": 1, "protocol": %s, "dataset": "%s", "model": "%s", "method": "%s", "seed": %s,
 "config_hash": "%s", "status": "done", "error": null,
 "test": {"loss": 2.302585, "top1": 0.1, "top3": 0.3, "top5": 0.5, "examples": 100},
 "size": {"parameters": 0, "dense_parameters": 1, "nonzero": 0, "kept_ratio": 0}}' \\
 "$(value protocol)" "$(value dataset)" "$(value model)" "$(value method)" "$(value seed)" \\
 "$(value config_hash)" > "$out"
"""
SHELL_RULE = '''
"""Guessing, written in the shell: a method for a test."""


use rule cell as guess with:
    input:
        fit="baselines/guess.sh",
        data=DATA,
    wildcard_constraints:
        method="guess(-.+)?",
'''


def cells_to_train(project, rules):
    """As a dry run and the status see it; they must agree."""
    jobs = planned(project.snakemake("-n")[1])
    command = [sys.executable, "-m", "harness.status"]
    answer = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    done, cells = re.match(r"(?:(\d+) done)?.* of (\d+) cells", answer.stdout).groups(default="0")
    assert sum(jobs.get(rule, 0) for rule in rules) == int(cells) - int(done), answer.stdout
    return {rule: jobs[rule] for rule in rules if rule in jobs}


def test_neither_what_snakemake_remembers_nor_times_of_files_decide_what_is_trained(fresh):
    shutil.rmtree(fresh.folder / ".snakemake")
    later = time.time() + 3600
    for name in ("baselines", "architectures", "workflow", "results/digits"):
        for path in (fresh.folder / name).rglob("*"):
            os.utime(path, (later, later), follow_symlinks=False)
    assert "Nothing to be done" in fresh.snakemake("-n")[1]
    network = fresh.folder / "architectures" / "cifar_resnet.py"
    network.write_text(
        network.read_text().replace(
            "nn.Conv2d(in_channels, out_channels, 3,", "nn.Conv2d(in_channels, out_channels, 5,"
        )
    )
    assert cells_to_train(fresh, ["dense", "l1"]) == {"dense": 1, "l1": 1}


def test_a_table_has_exactly_the_cells_that_the_configuration_names_and_a_method_may_be_in_another_language(fresh):
    """Results without Snakemake's memory, as they come from another checkout; a seed and a method more, a cell less."""
    fresh.write("baselines/guess.sh", SHELL_METHOD)
    fresh.write("workflow/baselines/guess.smk", SHELL_RULE)
    with_method(fresh, "guess")
    shutil.rmtree(fresh.folder / ".snakemake")
    shutil.rmtree(fresh.folder / CELL / "l1")
    config = fresh.config
    renamed = {**config["tables"]["quick"], "seeds": [1, 2]}
    fresh.configure({**config, "tables": {"renamed": renamed}, "build": ["renamed"]})
    assert cells_to_train(fresh, ["dense", "l1", "guess"]) == {"dense": 1, "l1": 2, "guess": 2}
    before = (fresh.folder / CELL / "dense" / "seed1" / "metrics.json").read_bytes()
    code, output = fresh.snakemake()
    assert code == 0, output
    rows = table(fresh, "renamed")
    assert (
        rows.groupby("method").size().to_dict() == {"dense": 2, "l1": 2, "guess": 2}
        and (rows["status"] == "done").all()
    )
    assert rows.set_index("method").loc["guess", "top1"].tolist() == pytest.approx([0.1, 0.1])
    assert (fresh.folder / CELL / "dense" / "seed1" / "metrics.json").read_bytes() == before
    assert "Nothing to be done" in fresh.snakemake("-n")[1]
    fresh.configure({**fresh.config, "tables": {"renamed": {**renamed, "seeds": [1]}}})
    assert planned(fresh.snakemake("-n")[1]).keys() >= {"listing", "collect", "tables"}
    assert cells_to_train(fresh, ["dense", "l1", "guess"]) == {}


def test_a_failed_cell_stops_no_other_and_is_marked_and_tried_again(fresh):
    broken = NEW_METHOD.replace("task.train(model)", "raise ValueError('the moon is in the wrong phase')")
    fresh.write("baselines/halve.py", broken)
    fresh.write("workflow/baselines/halve.smk", NEW_RULE.format(name="halve"))
    shutil.rmtree(fresh.folder / CELL / "l1")
    with_method(fresh, "halve")
    code, output = fresh.snakemake()
    assert code != 0 and "the moon is in the wrong phase" in output
    assert metrics(fresh, "halve")["status"] == "failed" and metrics(fresh, "l1")["status"] == "done"
    assert "failed" in (fresh.folder / "results" / "paper" / "quick.md").read_text()
    assert planned(fresh.snakemake("-n")[1]).get("halve") == 1
    fresh.write("baselines/halve.py", NEW_METHOD)
    code, output = fresh.snakemake()
    assert code == 0, output
    assert "Nothing to be done" in fresh.snakemake("-n")[1]


def shipped_config():
    return yaml.safe_load((ROOT / "config" / "config.yaml").read_text())


def test_a_second_snakemake_in_the_same_folder_is_refused_and_the_first_goes_on(fresh):
    config = fresh.config
    config["recipes"]["quick"].update(epochs=60, prune_epoch=30)
    fresh.configure(config)
    first = fresh.start()
    deadline = time.monotonic() + 60
    while not (fresh.folder / CELL / "dense" / "seed1" / "progress.json").exists():
        assert time.monotonic() < deadline and first.poll() is None
        time.sleep(0.1)
    code, output = fresh.snakemake()
    assert code != 0 and ("cannot be locked" in output or "another Snakemake" in output)
    assert fresh.snakemake("-n")[0] == 0
    output, _ = first.communicate(timeout=600)
    assert first.returncode == 0, output


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


def test_a_crash_halfway_through_the_figures_is_no_success(fresh):
    crash = "import pathlib, sys\npathlib.Path(sys.argv[sys.argv.index('--out') + 1]).mkdir()\nsys.exit(3)\n"
    fresh.write("paper/figures/draw.py", crash)
    code, output = fresh.snakemake()
    assert code != 0, output
    assert planned(fresh.snakemake("-n")[1]).get("figures") == 1


def test_a_wrong_hyper_parameter_is_named(fresh):
    config = fresh.config
    config["methods"]["l1"] = {"prune_ration": 0.5}
    fresh.configure(config)
    refused(fresh, "did you mean 'prune_ratio'")


def test_a_method_without_a_rule_is_named(fresh):
    with_method(fresh, "thinnest")
    refused(fresh, "table 'quick' names method 'thinnest': add workflow/baselines/thinnest.smk")


def test_an_unknown_architecture_is_named(fresh):
    config = fresh.config
    config["tables"]["quick"]["models"] = ["resnet8", "resnet19"]
    fresh.configure(config)
    refused(fresh, "resnet19")


def test_a_cell_of_no_table_is_asked_for_by_its_path(fresh):
    target = "results/digits/resnet8/l1-50/seed1/metrics.json"
    code, output = fresh.snakemake(target)
    assert code != 0 and "results/digits/resnet8/l1-50/seed1 names method 'l1-50', which is not defined" in output
    config = fresh.config
    config["methods"]["l1-50"] = {"prune_ratio": 0.5}
    fresh.configure(config)
    code, output = fresh.snakemake(target)
    assert code == 0, output
    assert metrics(fresh, "l1-50")["status"] == "done"


def test_a_result_that_was_edited_by_hand_is_trained_again(fresh):
    path = fresh.folder / CELL / "l1" / "seed1" / "metrics.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert cells_to_train(fresh, ["dense", "l1"]) == {"l1": 1}


def test_a_missing_dataset_is_named_with_its_place(fresh):
    config = fresh.config
    config["datasets"]["mnist-mini"] = {"source": "mnist", "recipe": "quick"}
    config["tables"]["quick"]["datasets"].append("mnist-mini")
    config["data"] = {"root": "nowhere", "download": False}
    fresh.configure(config)
    refused(fresh, "train-images-idx3-ubyte")


def test_status_tells_what_is_done(project):
    command = [sys.executable, "-m", "harness.status", "--all"]
    answer = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "2 done of 2 cells" in answer.stdout and "digits/resnet8/l1/seed1" in answer.stdout


def test_all_methods_make_a_table(fresh):
    methods = shipped_config()["tables"]["quick"]["methods"]
    fresh.configure(reduced(fresh.config, methods))
    code, output = fresh.snakemake()
    assert code == 0, output
    assert set(table(fresh)["method"]) >= set(methods)
    assert (table(fresh)["status"] == "done").all()


def test_each_theorem_is_a_job_of_its_own_and_editing_one_runs_it_alone(fresh):
    plan = planned(fresh.snakemake("-n", "theory")[1])
    assert [plan.get(name) for name in (*configuration.THEOREMS, "theory_page", "theory_report")] == [1] * 6
    fresh.configure({**fresh.config, "data": {"root": "nowhere", "download": False}})
    code, output = fresh.snakemake("hidden_layer")
    assert code == 0, output
    verdicts = pandas.read_csv(fresh.folder / "results" / "theory" / "hidden_layer" / "verdicts.csv")
    assert set(verdicts["verdict"]) == {"not run"}
    os.utime(fresh.folder / "theory" / "hidden_layer.py")
    for module, jobs in (("theory/ratings.py", {}), ("theory/experiment.py", {"hidden_layer": 1, "total": 1})):
        edited = fresh.folder / module
        edited.write_text(edited.read_text() + "\n\nEDITED = True\n")
        assert planned(fresh.snakemake("-n", "hidden_layer")[1]) == jobs


def test_the_theorems_are_in_the_report_if_the_configuration_says_so(fresh):
    assert "theory_page" not in planned(fresh.snakemake("-n")[1])
    fresh.configure({**fresh.config, "theory": True})
    plan = planned(fresh.snakemake("-n")[1])
    assert plan["theory_page"] == plan["report"] == 1
