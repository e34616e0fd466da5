"""A table that tunes its methods trains variants of them, and says of which method and by which values."""

import copy

import pytest

from harness.plan import configuration, grid
from harness.plan.hyperparameters import check_hyperparameters
from harness.plan.validation import ConfigError

OPTIMIZER = {"name": "sgd", "lr": 0.1}
RECIPE = {"epochs": 2, "prune_epoch": 1, "batch_size": 8, "optimizer": OPTIMIZER, "schedule": {"step_epochs": 1}}
TABLE = {"datasets": ["digits"], "models": ["resnet8"], "methods": ["dense", "dropout-20"], "seeds": [1]}
CONFIG = {
    "build": [],
    "data": {"root": "data"},
    "tables": {"tuned": TABLE},
    "datasets": {"digits": {"source": "digits", "recipe": "short"}},
    "recipes": {"short": RECIPE},
    "methods": {"dense": None, "dropout-20": {"rate": 0.2}, "dropout": {"rate": 0.5}, "scratch-dropout": None},
}


def tuned(tune, **table):
    config = copy.deepcopy(CONFIG)
    config["tables"]["tuned"] |= {"tune": tune, **table}
    configuration.check(config, configuration.methods_with_rule())
    return configuration.expanded(config)


def names(config):
    return [cell["method"] for cell in grid.cells(config, "tuned")]


def test_every_combination_is_a_variant_and_what_a_method_has_anyway_keeps_its_name():
    config = tuned({"dropout-20": {"rate": [0.2, 0.5], "lr_factor": [1, 2]}})
    variants = ["dropout-20", "dropout-20_lr_factor_2", "dropout-20_rate_0.5", "dropout-20_rate_0.5_lr_factor_2"]
    assert names(config) == ["dense", *variants]
    assert config["tables"]["tuned"]["tuned"][variants[-1]] == {
        "method": "dropout-20",
        "tried": {"rate": 0.5, "lr_factor": 2},
    }


def test_all_stands_for_the_methods_that_have_no_values_of_their_own():
    config = tuned({"all": {"lr_factor": [0.5, 1]}, "dropout-20": {"rate": [0.1]}})
    assert names(config) == ["dense-lr_factor_0.5", "dense", "dropout-20_rate_0.1"]


def test_a_factor_multiplies_the_rate_of_the_recipe_and_is_no_hyperparameter_of_the_method():
    half, whole = grid.cells(tuned({"dropout-20": {"lr_factor": [0.5, 1]}}), "tuned")[1:]
    assert half["config"]["recipe"] == {**RECIPE, "optimizer": {**OPTIMIZER, "lr": 0.05}}
    assert half["config"]["hyperparameters"] == whole["config"]["hyperparameters"] == {"rate": 0.2}
    assert whole["config"]["recipe"] == RECIPE


def test_a_table_without_tuning_has_the_cells_it_had():
    assert grid.cells(configuration.expanded(CONFIG), "tuned") == grid.cells(CONFIG, "tuned")


def test_expanding_leaves_the_configuration_itself_alone():
    before = copy.deepcopy(CONFIG)
    configuration.expanded(CONFIG)
    assert before == CONFIG


@pytest.mark.parametrize(
    ("tune", "table", "sentence"),
    [
        ({"dropot-20": {"rate": [0.1]}}, {}, "tables.tuned.tune' names method 'dropot-20'.*did you mean 'dropout-20'"),
        ({"dropout-20": {"rate": []}}, {}, "tables.tuned.tune.dropout-20.rate"),
        ({"dropout-20": {"rate": [[0.1]]}}, {}, "tables.tuned.tune.dropout-20.rate.0"),
        ({"dropout-20": {"rate": ["a b"]}}, {}, "'dropout-20_rate_a b'.*no name"),
        ({"dropout-20": {"rate": [0.1, 0.1]}}, {}, "'dropout-20_rate_0.1' twice"),
        (
            {"scratch-dropout": {"rate": [0.1]}},
            {"methods": ["scratch-dropout"]},
            "trains what another method left: tune that one",
        ),
    ],
)
def test_what_cannot_be_tuned_is_a_sentence(tune, table, sentence):
    with pytest.raises(ConfigError, match=sentence):
        tuned(tune, **table)


@pytest.mark.parametrize("factor", [0, -1, "fast"])
def test_a_factor_of_the_learning_rate_is_positive(factor):
    with pytest.raises(ConfigError, match=r"methods.dense.lr_factor"):
        check_hyperparameters("dense", {"lr_factor": factor}, "baselines/dense.py")
