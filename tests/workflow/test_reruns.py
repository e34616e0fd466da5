"""What runs again and what does not, as a dry run says it: files decide, and not what Snakemake remembers."""

import os
import shutil
import time

import pytest
from projects import CELL, cells_to_train, planned

from harness.plan import grid


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
    _, output = fresh.snakemake("-n")
    assert planned(output).get("l1") == 1 and "dense" not in planned(output)


def test_changing_a_dataset_runs_its_cells_in_the_same_run(fresh):
    config = fresh.config
    config["datasets"]["digits"]["split_seed"] = 5
    fresh.configure(config)
    assert {"data": 1, "dense": 1, "l1": 1, "collect": 1}.items() <= planned(fresh.snakemake("-n")[1]).items()


def test_a_dataset_that_is_prepared_again_runs_no_cell(fresh):
    (fresh.folder / grid.prepared(fresh.config, "digits")).unlink()
    assert planned(fresh.snakemake("prepare")[1])["data"] == 1
    assert "Nothing to be done" in fresh.snakemake("-n")[1]


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


def test_a_result_that_was_edited_by_hand_is_trained_again(fresh):
    path = fresh.folder / CELL / "l1" / "seed1" / "metrics.json"
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    assert cells_to_train(fresh, ["dense", "l1"]) == {"l1": 1}
