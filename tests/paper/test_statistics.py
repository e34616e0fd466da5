"""Tests, ranks and fronts on numbers that can be checked by hand."""

import math
from pathlib import Path

import numpy
import pandas
import pytest

from harness import kinds
from paper.rows.summary import read_rows
from paper.statistics import compute
from paper.statistics.paired import compare, holm, paired_tests
from paper.statistics.pareto import front
from paper.statistics.ranks import ranking


def test_paired_differences_are_tested_by_t_and_rank():
    pairs, mean, low, high, *_, t_p, _ = compare(numpy.array([1.0, 2.0, 3.0]))
    assert pairs == 3 and mean == 2
    assert (low, high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    # t = 2 / (1 / sqrt(3)) with two degrees of freedom.
    assert t_p == pytest.approx(0.0741799, abs=1e-6)
    *_, boot_low, boot_high, _, wilcoxon_p = compare(numpy.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    # Of 64 signs two are as extreme.
    assert wilcoxon_p == pytest.approx(2 / 64) and 1 <= boot_low < 3.5 < boot_high <= 6


def test_five_seeds_have_no_rank_test_and_no_bootstrap():
    *_, boot_low, boot_high, _, wilcoxon_p = compare(numpy.array([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert all(map(math.isnan, (boot_low, boot_high, wilcoxon_p)))


def test_equal_results_show_no_difference_and_two_pairs_show_nothing():
    assert compare(numpy.zeros(4))[:4] == (4, 0.0, 0.0, 0.0) and compare(numpy.zeros(4))[-2] == 1.0
    few = compare(numpy.array([1.0, 2.0]))
    assert few[:2] == (2, 1.5) and all(map(math.isnan, few[2:]))


def test_a_dense_network_near_chance_is_no_ground_for_a_result(make_table):
    rows = read_rows(make_table()).assign(chance=0.949)
    assert paired_tests(rows)["result"].str.startswith("too little to say: the dense network is near chance").all()
    assert not paired_tests(rows.assign(chance=0.1))["result"].str.startswith("too little").any()


@pytest.mark.parametrize(
    ("metric", "value", "chance", "beats"),
    [("top1", 0.18, 0.1, False), ("top1", 0.19, 0.1, True), ("rmse", 0.95, 1.0, False), ("rmse", 0.9, 1.0, True)],
)
def test_a_tenth_of_the_way_from_chance_to_the_best_is_learning(metric, value, chance, beats):
    main = {kinds.named(name).main.name: kinds.named(name).main for name in kinds.names()}[metric]
    assert main.beats(value, chance) is beats


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests_that_were_made():
    corrected = holm(pandas.Series([0.01, math.nan, 0.04, 0.03]))
    assert corrected[0] == pytest.approx(0.03) and math.isnan(corrected[1])
    assert corrected[2] == corrected[3] == pytest.approx(0.06)


def test_every_method_is_compared_with_edropout_seed_by_seed(make_table):
    rows = read_rows(make_table(models=("resnet8", "vgg8"), seeds=(1, 2, 3)))
    table = paired_tests(rows)
    assert len(table) == 8 and set(table["reference"]) == {"edropout"} and (table["pairs"] == 3).all()
    first = table.iloc[0]
    by = rows[(rows["model"] == "resnet8")].set_index(["method", "seed"])["top1"]
    assert first["difference"] == pytest.approx(100 * (by["dense"] - by["edropout"]).mean())
    assert (table["t_p_holm"] >= table["t_p"]).all()


def test_the_reference_can_be_named(make_table):
    rows = read_rows(make_table())
    by_default, by_name = paired_tests(rows), paired_tests(rows, "dense")
    assert set(by_name["reference"]) == {"dense"} and "edropout" in set(by_name["method"])
    one, other = (
        frame.groupby(["dataset", "model", "method"])["difference"].first() for frame in (by_default, by_name)
    )
    for dataset, model in {key[:2] for key in one.index}:
        assert one[dataset, model, "dense"] == pytest.approx(-other[dataset, model, "edropout"])


def test_a_missing_seed_leaves_its_pair_out(make_table):
    rows = read_rows(make_table(change=lambda cells: Path(cells[0]["path"]).unlink()))
    table = paired_tests(rows).set_index("method")
    assert table.loc["dense", "pairs"] == 2 and table.loc["random", "pairs"] == 3


FIXED = {"evaluation": "pruned", "kind": "classification"}


def summary(top1):
    lines = [
        {
            "dataset": dataset,
            "model": "m",
            "method": method,
            "evaluation": "pruned",
            "kind": "classification",
            "top1": value,
        }
        for dataset, values in top1.items()
        for method, value in values.items()
    ]
    return pandas.DataFrame(lines)


def test_ranks_are_averaged_over_datasets_and_incomplete_methods_are_named():
    table = {f"d{i}": {"a": 0.9, "b": 0.8, "c": 0.7, "e": math.nan if i == 0 else 0.1} for i in range(5)}
    result = ranking(summary(table))
    assert result.ranks.to_dict() == {"a": 1, "b": 2, "c": 3} and result.blocks == 5
    assert result.notes == ["Left out of the ranking, not finished on every pair: e."]
    # Demsar 2006: q(0.05, 3) = 2.343, times sqrt(3 * 4 / (6 * 5)).
    assert result.critical_difference == pytest.approx(2.343 * math.sqrt(12 / 30), abs=1e-3)
    assert result.nemenyi.loc["a", "c"] < 0.05 < result.nemenyi.loc["a", "b"]


def test_ranks_that_cannot_be_made_say_why():
    assert "there are 2 on 1" in ranking(summary({"d": {"a": 0.9, "b": 0.8}}))
    four = {f"d{i}": {"a": 0.9, "b": 0.8, "c": 0.7} for i in range(4)}
    assert "Too little to say about ranks" in ranking(summary(four)) and "there are 3 on 4" in ranking(summary(four))


def test_ranks_that_do_not_differ_are_a_sentence():
    turns = [(0.9, 0.8, 0.7), (0.8, 0.7, 0.9), (0.7, 0.9, 0.8)] * 2
    table = {f"d{i}": dict(zip("abc", values, strict=True)) for i, values in enumerate(turns)}
    assert "finds no difference among 3 methods on 6 pairs (p = 1.000)" in ranking(summary(table))


def test_the_front_holds_what_nothing_beats_in_both():
    points = pandas.DataFrame({"value": [10, 20, 20, 30, 10], "gain": [80, 90, 85, 90, 80]})
    points = points.assign(dataset="d", model="m")
    assert front(points).tolist() == [True, True, False, False, True]


def test_files_say_where_seeds_are_too_few(make_table, tmp_path):
    folder = tmp_path / "statistics"
    notes = compute.write(read_rows(make_table(seeds=(1,))), folder)
    assert any("Too few seeds" in note for note in notes) and not (folder / "ranks.csv").exists()
    assert pandas.read_csv(folder / "paired.csv")["result"].eq("too little to say: fewer than 3 seeds").all()
    assert (folder / "notes.txt").read_text().splitlines() == notes


def test_several_tables_are_ranked_together(make_table, tmp_path):
    methods = ["dense", "l1-30", "l1-50"]
    tables = [
        make_table("one", datasets=("digits",), models=("resnet8", "vgg8", "resnet18"), methods=methods),
        make_table("two", datasets=("mnist",), models=("resnet8", "vgg8", "resnet18"), methods=methods),
    ]
    assert compute.main(["--csv", *map(str, tables), "--out", str(tmp_path / "both")]) == 0
    ranks = pandas.read_csv(tmp_path / "both" / "ranks.csv")
    assert set(ranks["method"]) == set(methods) and (ranks["blocks"] == 6).all()
