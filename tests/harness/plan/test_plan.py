"""config.yaml becomes cells, or one sentence that names the key."""

import copy
import datetime
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.plan import configuration, grid
from harness.plan.hyperparameters import check_hyperparameters

ROOT = Path(__file__).resolve().parents[3]
CONFIG = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
RULES = {"dense", "edropout", *(path.stem for path in (ROOT / "workflow" / "baselines").glob("*.smk"))}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *parents, last = path
    section = config
    for key in parents:
        section = section[key]
    section[last] = value
    return config


def test_the_shipped_configuration_is_valid():
    configuration.check(CONFIG, RULES)


def test_the_quick_table_compares_every_method_that_prunes():
    left_out = {path.stem for path in (ROOT / "baselines").glob("*.py") if "dropouts" in path.read_text()}
    compared = {configuration.rule_of(method) for method in CONFIG["tables"]["quick"]["methods"]}
    left_out.add("random_path")  # the control of the searches with curvature, which have a table of their own
    assert compared - {"dropout"} == RULES - left_out - {"dropout"}


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("recipes", "quick", "epoch"), 3, "'recipes.quick.epoch' is unknown: did you mean 'epochs'"),
        (
            ("recipes", "quick", "batch_size"),
            0,
            "recipes.quick.batch_size' is 0: it must be greater than or equal to 1",
        ),
        (("recipes", "quick", "prune_epoch"), 20, "recipes.quick.prune_epoch' is 20: it must be less than epochs, 20"),
        (
            ("recipes", "words", "samples"),
            9,
            "recipes.words.samples' must be left out for dataset 'grammar': a language",
        ),
        (("recipes", "quick", "optimizer"), {"name": "adadelta"}, "recipes.quick.optimizer.lr' is missing"),
        (("datasets", "digits", "source"), "cifar", "datasets.digits.source' is 'cifar': did you mean 'cifar10'"),
        (("datasets", "digits", "recipe"), "quik", "datasets.digits.recipe.*did you mean 'quick'"),
        (("tables", "quick", "datasets"), ["digit"], "tables.quick.datasets.*did you mean 'digits'"),
        (("tables", "quick", "methods"), ["dens"], "tables.quick.methods.*did you mean 'dense'"),
        (("tables", "quick", "seeds"), [-1], "tables.quick.seeds.0' is -1: it must be greater than or equal to 0"),
        (("tables", "quick", "seeds"), [1, 1], "tables.quick': 'seeds' names 1 twice"),
        (("tables", "all"), CONFIG["tables"]["quick"], "tables.all.*rename the table"),
        (("tables", "dense"), CONFIG["tables"]["quick"], "tables.dense.*rename the table"),
        (("build",), ["quik"], "'build' names table 'quik'.*did you mean 'quick'"),
        (("data", "root"), "", "data.root' is '': it must have at least 1 character"),
        (("recipes", "quick", "optimizer"), {"lr": 1}, "recipes.quick.optimizer.name' is missing"),
        (("recipes", "quick", "optimizer", "name"), "adamW", "optimizer.name' is 'adamW': did you mean 'adamw'"),
        (
            ("recipes", "paper", "optimizer", "momentum"),
            1,
            "optimizer.momentum' is unknown: the keys are name, lr, rho",
        ),
        (
            ("recipes", "quick", "optimizer", "lr"),
            "1e-3",
            "is '1e-3': it must be a number, and YAML reads.*write 0.001",
        ),
        (("recipes", "quick", "epochs"), 20.0, "epochs' is 20.0: it must be an integer"),
        (("recipes", "quick", "epochs"), True, "epochs' is True: it must be an integer"),
        (("recipes", "quick", "compile"), "yes", "compile' is 'yes': it must be a boolean"),
        (("recipes", "quick", "schedule"), {"name": "cosine", "gamma": 0.3}, "schedule': a cosine takes neither"),
        (
            ("recipes", "quick", "optimizer"),
            {"name": "adam", "lr": 1, "betas": [0, 1]},
            "optimizer.betas.1' is 1: .*than 1",
        ),
        (
            ("recipes", "quick", "optimizer"),
            {"name": "sgd", "lr": 1, "nesterov": True},
            "'nesterov' needs a 'momentum'",
        ),
        (("datasets", "digits"), None, "datasets.digits' is None: it must be a mapping"),
        (("datasets", "digits", "image_size_by_model"), {"a-b": 8}, "image_size_by_model' has the name 'a-b'"),
        (("methods", "x\ud800"), {}, "is no text"),
        (("recipes", "quick", "optimizer", "lr"), float("nan"), "recipes.quick.optimizer.lr' is nan.*finite"),
        (("methods", "l1-vgg16_a", "prune_ratio"), [0.5, float("inf")], "methods.l1-vgg16_a.prune_ratio.1' is inf"),
        (("methods", "l1"), {1: 2}, "'methods.l1' has the key 1, which is no string"),
        (("methods", "l1", "prune_ratio"), [datetime.date(2020, 1, 1)], "'methods.l1.prune_ratio.0' is a date"),
        (("methods", "dropout", "rate"), yaml.safe_load("&x [*x]"), "'methods.dropout.rate.0.*deeper than 10 levels"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_sentence(path, value, sentence):
    with pytest.raises(configuration.ConfigError, match=sentence) as caught:
        configuration.check(changed(path, value), RULES)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_is_named_and_not_the_one_that_is_missing_for_it():
    config = changed(("recipes", "quick", "epoch"), 3)
    del config["recipes"]["quick"]["epochs"], config["recipes"]["quick"]["batch_size"]
    with pytest.raises(configuration.ConfigError, match=r"'recipes.quick.epoch' is unknown: did you mean 'epochs'"):
        configuration.check(config, RULES)


@pytest.mark.parametrize("number", ["1e-6", "125e-5", "3e5"])
def test_a_number_that_yaml_reads_as_text_is_shown_as_yaml_reads_it(number):
    said = r"write (\S+)$"
    with pytest.raises(configuration.ConfigError, match=said) as caught:
        configuration.check(changed(("recipes", "paper", "optimizer", "eps"), number), RULES)
    assert yaml.safe_load(re.search(said, str(caught.value))[1]) == float(number)


@pytest.mark.parametrize("name", ["a b", "a'b", 'a"b', "$(touch x)", "../up", "-rf", "", "a/b", "a;b", "Ä"])
@pytest.mark.parametrize("section", ["methods", "tables", "datasets"])
def test_names_that_a_shell_or_a_path_could_read_otherwise_are_refused(section, name):
    with pytest.raises(configuration.ConfigError):
        configuration.check(changed((section, name), CONFIG[section][next(iter(CONFIG[section]))]), RULES)


def test_a_method_without_a_rule_names_the_file_to_add():
    config = changed(("methods", "thinnest"), {})
    config["tables"]["quick"]["methods"].append("thinnest")
    with pytest.raises(
        configuration.ConfigError, match=r"table 'quick' names method 'thinnest': add workflow/baselines/thinnest.smk"
    ):
        configuration.check(config, RULES)


@pytest.mark.parametrize(
    ("method", "source"),
    [("scratch", ""), ("scratch-l2", "l2"), ("scratch-thinnest", "thinnest"), ("scratch-scratch-l2", "l2")],
)
def test_the_missing_source_of_a_method_from_scratch_is_named(method, source):
    config = changed(("methods", method), {})
    config["methods"].update({"thinnest": {}, "scratch-l2": {}})
    config["tables"]["quick"]["methods"] = [method]
    with pytest.raises(
        configuration.ConfigError, match=rf"table 'quick' names method '{method}', but its source '{source}' "
    ):
        configuration.check(config, RULES)


def test_every_rule_of_the_workflow_is_reserved():
    command = [sys.executable, "-m", "snakemake", "--list-rules"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    listed = set(answer.stdout.split()) - set(CONFIG["tables"])
    assert configuration.rules_of_the_workflow() == listed
    assert listed >= {"all", "tables", "cell", "dense", "edropout", "random_dense", "hidden_layer"}


def test_an_unknown_architecture_is_named():
    with pytest.raises(configuration.ConfigError, match="resnet19"):
        configuration.check_models(["resnet8", "resnet19"])


def test_known_architectures_cost_no_import_of_torch():
    code = (
        "import sys; from harness.plan import configuration;"
        "configuration.check_models(['resnet8', 'resnet18', 'regnet_y_400mf']);"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"dataset": "digis"}, "dataset 'digis'.*'digits'"), ({"method": "l1-33"}, "method 'l1-33'")],
)
def test_a_cell_that_the_configuration_does_not_define_is_named(changes, said):
    with pytest.raises(configuration.ConfigError, match=f"^results/.*/seed1 names {said}"):
        cell_of(CONFIG, **changes)


def cell_of(config, **changes):
    return grid.cell(config, **{"dataset": "digits", "model": "resnet8", "method": "l1", "seed": 1, **changes})


def test_the_hash_covers_what_moves_a_number_and_nothing_else():
    base = cell_of(CONFIG)["config_hash"]
    for path, value in [
        (("recipes", "quick", "epochs"), 41),
        (("methods", "l1", "prune_ratio"), 0.4),
        (("datasets", "digits", "train_examples"), 100),
    ]:
        assert cell_of(changed(path, value))["config_hash"] != base
    assert cell_of(CONFIG, seed=2)["config_hash"] != base
    assert cell_of(changed(("data", "root"), "/elsewhere"))["config_hash"] == base
    assert cell_of(changed(("recipes", "mini", "epochs"), 99))["config_hash"] == base


def test_the_image_size_of_a_model_wins():
    config = changed(("datasets", "digits", "image_size_by_model"), {"alexnet": 224})
    assert cell_of(config, model="alexnet")["config"]["data"]["image_size"] == 224
    assert "image_size" not in cell_of(config)["config"]["data"]


def test_cells_are_the_product_of_a_table():
    table = CONFIG["tables"]["quick"]
    expected = 1
    for key in ("datasets", "models", "methods", "seeds"):
        expected *= len(table[key])
    cells = grid.cells(CONFIG, "quick")
    assert len(cells) == expected == len({grid.folder(cell) for cell in cells})


def test_a_hyper_parameter_that_fit_does_not_have_is_named(tmp_path):
    fit = tmp_path / "fit.py"
    fit.write_text("def fit(model, task, *, prune_ratio=0.5):\n    return model\n")
    check_hyperparameters("l1", {"prune_ratio": 0.5}, fit)
    with pytest.raises(configuration.ConfigError, match=r"methods.l1.prune_ration.*did you mean 'prune_ratio'"):
        check_hyperparameters("l1", {"prune_ration": 0.5}, fit)


def test_a_syntax_error_in_a_method_is_one_sentence_with_file_and_line(tmp_path):
    fit = tmp_path / "fit.py"
    fit.write_text("def fit(model, task):\n    return (model\n")
    with pytest.raises(configuration.ConfigError, match=r"fit.py, line 2, is no valid Python: '\(' was never closed"):
        check_hyperparameters("l1", {}, fit)
