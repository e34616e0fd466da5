"""A method that trains faster is compared with what others reach in the same time, not in the same epochs."""

import pandas
import pytest

from paper.figures import canvas, time
from paper.figures.style import looks
from paper.statistics.equal_time import equal_time
from paper.tables.significance import equal_time_table

EPOCHS = {"short": 10, "longer": 25}


def rows(step, top1, *, seeds=(1, 2, 3)):
    """Made-up rows: seconds of an epoch and top-1 by (method, dataset); seeds add what they like."""
    lines = []
    for (method, dataset), accuracy in top1.items():
        for seed in seeds:
            line = {"dataset": dataset, "model": "mlp", "method": method, "seed": seed, "data": "d", "status": "done"}
            line |= {"evaluation": "pruned", "kind": "classification", "total_epochs": EPOCHS[dataset]}
            line |= {"top1": accuracy + seed / 1000, "val_top1": accuracy, "latency_device": "cpu"}
            seconds = step[method] * EPOCHS[dataset]
            lines.append(line | {"train_cpu_seconds": seconds, "train_seconds": 7.0})
    return pandas.DataFrame(lines)


STEP = {"dense": 1.0, "dropout": 1.1, "dropout-20": 1.1, "approximate": 0.4, "slow": 2.0}
TOP1 = {
    **{("dense", "short"): 0.90, ("dense", "longer"): 0.99},
    **{("dropout", "short"): 0.91, ("dropout-20", "short"): 0.92},
    **{("approximate", "short"): 0.89, ("approximate", "longer"): 0.93},
    **{("slow", "short"): 0.95, ("slow", "longer"): 0.96},
}


def test_a_method_stands_with_the_longest_recipe_that_takes_no_more_time():
    table = equal_time(rows(STEP, TOP1)).set_index(["reference", "method"])
    against_dense = table.loc[("dense", "approximate")]
    assert against_dense["dataset"] == "longer" and against_dense["time_ratio"] == pytest.approx(1.0)
    assert against_dense["difference"] == pytest.approx(3.0)
    assert equal_time(rows({**STEP, "approximate": 0.41}, TOP1))["dataset"].tolist()[0] == "short"


def test_what_takes_more_time_even_when_short_says_so():
    table = equal_time(rows(STEP, TOP1)).set_index(["reference", "method"])
    assert table.loc[("dense", "slow"), "dataset"] == "short" and table.loc[("dense", "slow"), "time_ratio"] == 2.0


def test_of_the_dropouts_validation_chooses_one_and_the_others_are_no_rivals():
    table = equal_time(rows(STEP, TOP1))
    assert set(table["reference"]) == {"dense", "dropout-20"}
    assert set(table["method"]) == {"approximate", "slow"}


def test_recipes_of_one_length_have_no_such_table():
    one = {place: value for place, value in TOP1.items() if place[1] == "short"}
    assert equal_time(rows(STEP, one)).empty


def test_the_test_is_corrected_and_read():
    table = equal_time(rows(STEP, TOP1))
    assert (table["t_p_holm"] >= table["t_p"]).all()
    page = equal_time_table(table)
    assert [len(line) for line in page.rows] == [len(page.columns)] * len(table)


def test_the_figure_joins_the_recipes_of_a_method(tmp_path):
    plots = list(time.plots(rows(STEP, TOP1), looks(STEP)))
    assert [plot.name for plot in plots] == ["time-short"]
    line = plots[0].data.query("method == 'approximate'")
    assert line["seconds"].tolist() == pytest.approx([4.0, 10.0])
    assert line["score"].tolist() == pytest.approx([89.2, 93.2])
    canvas.save(plots[0], tmp_path)
    assert not list(time.plots(rows(STEP, {place: 0.9 for place in TOP1 if place[1] == "short"}), looks(STEP)))
