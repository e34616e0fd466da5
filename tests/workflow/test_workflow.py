"""The workflow as its users meet it: a table from one command, new methods by two files, failures stop no other."""

import os
import shutil
import subprocess
import sys

import examples
import pandas
import pytest
import yaml
from projects import CELL, ROOT, SECRET, cells_to_train, planned, reduced

from harness.plan import configuration


def test_the_table_is_rendered_and_its_places_are_printed(project):
    for name in ("quick.csv", "quick.md", "quick.tex", "quick.html", "report.pdf"):
        assert (project.folder / "results" / "paper" / name).stat().st_size > 0
    assert set(project.table()["method"]) >= {"dense", "l1"}


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


def test_status_tells_what_is_done(project):
    command = [sys.executable, "-m", "harness.status", "--all"]
    answer = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    assert "2 done of 2 cells" in answer.stdout and "digits/resnet8/l1/seed1" in answer.stdout


METHODS = ["dense", "l1", "mine", "guess"]
NEW_FILES = [
    *("baselines/mine.py", "workflow/baselines/mine.smk"),
    *("baselines/guess.sh", "workflow/baselines/guess.smk"),  # in another language
]
"""The methods of README and docs/methods.md."""


def test_a_table_has_exactly_the_cells_that_the_configuration_names_and_new_methods_are_two_files_and_a_line(fresh):
    """Results without Snakemake's memory, as they come from another checkout; a seed and methods more, a cell less."""
    for path in NEW_FILES:
        fresh.write(path, examples.file(path))
    fresh.add_method("mine", {"prune_ratio": 0.5})
    fresh.add_method("guess")
    code, output = fresh.snakemake("--lint")
    assert code == 0, output
    shutil.rmtree(fresh.folder / ".snakemake")
    shutil.rmtree(fresh.folder / CELL / "l1")
    config = fresh.config
    renamed = {**config["tables"]["quick"], "seeds": [1, 2]}
    fresh.configure({**config, "tables": {"renamed": renamed}, "build": ["renamed"]})
    assert cells_to_train(fresh, METHODS) == {"dense": 1, "l1": 2, "mine": 2, "guess": 2}
    before = (fresh.folder / CELL / "dense" / "seed1" / "metrics.json").read_bytes()
    code, output = fresh.snakemake()
    assert code == 0, output
    rows = fresh.table("renamed")
    assert rows.groupby("method").size().to_dict() == dict.fromkeys(METHODS, 2) and (rows["status"] == "done").all()
    assert (fresh.folder / CELL / "dense" / "seed1" / "metrics.json").read_bytes() == before
    assert fresh.metrics("mine")["budget"] == {"dense_epochs": 2, "own_epochs": 2, "total_epochs": 4}
    assert fresh.metrics("mine")["size"]["kept_ratio"] == pytest.approx(0.52, abs=0.01)
    parameters = fresh.metrics("dense")["size"]["dense_parameters"]
    assert rows.set_index("method").loc["guess", "kept_ratio"].tolist() == pytest.approx([10 / parameters] * 2)
    assert "Nothing to be done" in fresh.snakemake("-n")[1]
    fresh.configure({**fresh.config, "tables": {"renamed": {**renamed, "seeds": [1]}}})
    assert planned(fresh.snakemake("-n")[1]).keys() >= {"listing", "collect", "tables"}
    assert cells_to_train(fresh, METHODS) == {}


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


def test_a_failed_cell_stops_no_other_and_is_marked_and_tried_again(fresh):
    broken = NEW_METHOD.replace("task.train(model)", "raise ValueError('the moon is in the wrong phase')")
    fresh.write("baselines/halve.py", broken)
    fresh.write("workflow/baselines/halve.smk", NEW_RULE.format(name="halve"))
    shutil.rmtree(fresh.folder / CELL / "l1")
    fresh.add_method("halve")
    code, output = fresh.snakemake()
    assert code != 0 and "the moon is in the wrong phase" in output
    assert fresh.metrics("halve")["status"] == "failed" and fresh.metrics("l1")["status"] == "done"
    assert "failed" in (fresh.folder / "results" / "paper" / "quick.md").read_text()
    assert planned(fresh.snakemake("-n")[1]).get("halve") == 1
    fresh.write("baselines/halve.py", NEW_METHOD)
    code, output = fresh.snakemake()
    assert code == 0, output
    assert "Nothing to be done" in fresh.snakemake("-n")[1]


def test_a_crash_halfway_through_the_figures_is_no_success(fresh):
    crash = "import pathlib, sys\npathlib.Path(sys.argv[sys.argv.index('--out') + 1]).mkdir()\nsys.exit(3)\n"
    fresh.write("paper/figures/draw.py", crash)
    code, output = fresh.snakemake()
    assert code != 0, output
    assert planned(fresh.snakemake("-n")[1]).get("figures") == 1


def test_a_cell_of_no_table_is_asked_for_by_its_path(fresh):
    target = "results/digits/resnet8/l1-50/seed1/metrics.json"
    code, output = fresh.snakemake(target)
    assert code != 0 and "results/digits/resnet8/l1-50/seed1 names method 'l1-50', which is not defined" in output
    config = fresh.config
    config["methods"]["l1-50"] = {"prune_ratio": 0.5}
    fresh.configure(config)
    code, output = fresh.snakemake(target)
    assert code == 0, output
    assert fresh.metrics("l1-50")["status"] == "done"


def test_all_methods_make_a_table(fresh):
    methods = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())["tables"]["quick"]["methods"]
    fresh.configure(reduced(fresh.config, methods))
    code, output = fresh.snakemake()
    assert code == 0, output
    assert set(fresh.table()["method"]) >= set(methods)
    assert (fresh.table()["status"] == "done").all()


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
