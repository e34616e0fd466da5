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


def test_the_quick_table_compares_every_method():
    assert {configuration.rule_of(method) for method in CONFIG["tables"]["quick"]["methods"]} == RULES


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("recipes", "quick", "epoch"), 3, "recipes.quick.*'epoch' was unexpected"),
        (("recipes", "quick", "batch_size"), 0, "recipes.quick.batch_size.*minimum of 1"),
        (("recipes", "quick", "prune_epoch"), 20, "recipes.quick.prune_epoch.*between 0 and epochs"),
        (("recipes", "quick", "optimizer"), {"name": "adadelta"}, "optimizer.*'lr' is a required property"),
        (("datasets", "digits", "source"), "cifar", "datasets.digits.source.*'cifar' is not one of"),
        (("datasets", "digits", "recipe"), "quik", "datasets.digits.recipe.*did you mean 'quick'"),
        (("tables", "quick", "datasets"), ["digit"], "tables.quick.datasets.*did you mean 'digits'"),
        (("tables", "quick", "methods"), ["dens"], "tables.quick.methods.*did you mean 'dense'"),
        (("tables", "quick", "seeds"), [-1], "tables.quick.seeds.0.*minimum of 0"),
        (("tables", "quick", "seeds"), [1, 1], "tables.quick.seeds.*non-unique"),
        (("tables", "all"), CONFIG["tables"]["quick"], "tables.all.*rename the table"),
        (("tables", "dense"), CONFIG["tables"]["quick"], "tables.dense.*rename the table"),
        (("build",), ["quik"], "'build' names table 'quik'.*did you mean 'quick'"),
        (("data", "root"), "", "data.root"),
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
    files = [ROOT / "Snakefile", *(ROOT / "workflow").glob("Snakefile"), *(ROOT / "workflow" / "rules").glob("*.smk")]
    names = {name for path in files for name in re.findall(r"^rule (\w+):", path.read_text(), flags=re.MULTILINE)}
    assert names | set(configuration.THEOREMS) == configuration.RESERVED_TARGETS


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
    configuration.check_hyperparameters("l1", ["prune_ratio"], fit)
    with pytest.raises(configuration.ConfigError, match=r"methods.l1.prune_ration.*did you mean 'prune_ratio'"):
        configuration.check_hyperparameters("l1", ["prune_ration"], fit)


def test_a_syntax_error_in_a_method_is_one_sentence_with_file_and_line(tmp_path):
    fit = tmp_path / "fit.py"
    fit.write_text("def fit(model, task):\n    return (model\n")
    with pytest.raises(configuration.ConfigError, match=r"fit.py, line 2, is no valid Python: '\(' was never closed"):
        configuration.check_hyperparameters("l1", [], fit)
