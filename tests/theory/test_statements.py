"""Statements are decided by their rows, and data that is missing stops nothing else."""

import pandas
import pytest

from harness.data.prepared import DataError
from theory import hidden_layer, linear_networks, matrix_completion, relu_networks, run
from theory.experiment import Data, Experiment, Verdict, largest_step, sentence, tidy

THEOREMS = (matrix_completion, hidden_layer, linear_networks, relu_networks)
STATEMENTS = {f"{theorem.__name__}.{one.__name__}": one for theorem in THEOREMS for experiment in theorem.EXPERIMENTS
              for one in experiment.statements}  # fmt: skip


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_says_its_source_and_what_decides(name):
    text = STATEMENTS[name].__doc__
    assert sentence(STATEMENTS[name]).endswith(".")
    assert "Source:" in text and "Observed" in text and "efuted" in text


def test_a_value_outside_its_limits_or_unknown_is_not_observed():
    assert Verdict("", 1.0, low=1, high=1).observed
    assert not Verdict("", 1.1, high=1).observed
    assert not Verdict("", 0.9, low=1).observed
    assert not Verdict("", float("nan")).observed


def test_largest_step_is_below_one_only_for_what_falls_all_the_way():
    assert largest_step(pandas.Series([4.0, 2.0, 1.5])) == 0.75
    assert largest_step(pandas.Series([4.0, 2.0, 2.5])) == 1.25


def by_rate(quantities):
    return tidy(
        [
            {"keep_rate": rate, "seed": 1} | {name: found[place] for name, found in quantities.items()}
            for place, rate in enumerate((0.3, 0.5, 1.0))
        ],
        "keep_rate",
        "seed",
    )


def curve(errors):
    rows = [{"step": 2**power, "test_error": error} for power, error in enumerate(errors, 9)]
    settings = {"margin": relu_networks.MARGIN, "width": relu_networks.WIDTH, "network": "full"}
    return tidy([settings | row for row in rows], *settings, "step")


@pytest.mark.parametrize(
    ("statement", "good", "bad"),
    [
        (matrix_completion.loss_is_explicit, {"monte_carlo": (3, 2, 1.005), "closed_form": (3, 2, 1)},
         {"monte_carlo": (3, 2.1, 1), "closed_form": (3, 2, 1)}),
        (matrix_completion.trace_norm_is_attained, {"weighted_ratio": (1, 1.04, 9)}, {"weighted_ratio": (1, 1.06, 1)}),
        (matrix_completion.unweighted_norm_is_not, {"unweighted_ratio": (1.06, 2, 1)},
         {"unweighted_ratio": (1.04, 2, 2)}),
        (matrix_completion.gap_shrinks, {"test_loss": (5, 5, 5), "train_loss": (4, 3, 2)},
         {"test_loss": (5, 5, 5), "train_loss": (2, 3, 4)}),
        (matrix_completion.rank_falls, {"effective_rank": (1, 2, 3)}, {"effective_rank": (1, 3, 2)}),
        (hidden_layer.regulariser_falls, {"regulariser": (1, 2, 3)}, {"regulariser": (2, 1, 3)}),
        (hidden_layer.gap_shrinks, {"gap": (1, 2, 3)}, {"gap": (2, 1, 3)}),
        (hidden_layer.gap_follows_regulariser, {"gap": (1, 2, 3), "regulariser": (4, 5, 9)},
         {"gap": (1, 2, 3), "regulariser": (4, 9, 5)}),
    ],
)  # fmt: skip
def test_statements_are_observed_in_rows_that_show_them_and_in_no_others(statement, good, bad):
    assert statement(by_rate(good)).observed
    assert not statement(by_rate(bad)).observed


def test_error_falls_like_one_over_steps_or_not():
    like_it, slower = curve([1 / 2**power for power in range(9)]), curve([1 / 1.5**power for power in range(9)])
    assert relu_networks.error_falls_like_one_over_steps(like_it).value == pytest.approx(-1)
    assert not relu_networks.error_falls_like_one_over_steps(slower).observed
    assert not relu_networks.error_times_steps_is_bounded(slower).observed
    assert relu_networks.error_times_steps_is_bounded(curve([0.4, 0.3, 0.1, 0.01])).observed


def test_an_experiment_without_its_data_is_not_run_and_the_rest_goes_on():
    def missing(data):
        raise DataError("put it there")

    def there(data):
        return tidy(
            [{"seed": 1, "keep_rate": 0.5, "gap": 1.0}, {"seed": 1, "keep_rate": 1.0, "gap": 2.0}], "keep_rate", "seed"
        )

    experiments = [
        Experiment("a", missing, (hidden_layer.gap_shrinks,)),
        Experiment("b", there, (hidden_layer.gap_shrinks,)),
    ]
    rows, verdicts = run.check(experiments, Data(None))
    assert verdicts["verdict"].tolist() == ["not run", "observed"]
    assert verdicts["reason"].tolist() == ["put it there", ""]
    assert rows["data"].tolist() == ["b", "b"]


def test_a_theorem_whose_data_is_missing_altogether_still_has_its_tables(tmp_path):
    out = tmp_path / "out"
    assert run.main(["theory/hidden_layer.py", "--root", str(tmp_path), "--out", str(out)]) == 0
    verdicts = pandas.read_csv(out / "verdicts.csv")
    assert verdicts.columns.tolist() == run.COLUMNS
    assert set(verdicts["verdict"]) == {"not run"} and len(verdicts) == 8
    assert verdicts["reason"].str.contains("downloading is off").all()
    assert len(pandas.read_csv(out / "rows.csv")) == 0
