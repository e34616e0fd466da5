"""No number is ever stale: whatever a result was made of has to be what is there now, or the cell counts as missing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from harness.networks import names
from harness.plan import code, grid, made_of, rendered
from harness.plan.current import Current

FILES = {
    "architectures/tiny.py": "from architectures.shared import WIDTH\nNAMES = ['tiny_.']\ndef build():\n    pass\n",
    "architectures/other.py": "def build():\n    return 1\n",
    "architectures/shared.py": "WIDTH = 3\n",
    "baselines/dense.py": "def fit():\n    return 1\n",
    "baselines/l1.py": "def fit():\n    return 2\n",
    "workflow/rules/dense.smk": "# The dense network.\nuse rule cell as dense with:\n    input:\n        data=DATA,\n",
    "workflow/baselines/l1.smk": "'''L1.'''\nuse rule cell as l1 with:\n    input:\n        init=DENSE,\n",
    "harness/kinds/classification.py": "LOSS = 1\n",
    "harness/runs/cell.py": "import harness.networks.zoo\n",
    "harness/networks/zoo.py": "STEM = 7\n",
}
CONFIG = {
    "datasets": {"digits": {"source": "digits", "recipe": "quick"}},
    "recipes": {"quick": {"epochs": 4}},
    "methods": {"dense": {}, "l1": {"prune_ratio": 0.5}},
    "tables": {"t": {"datasets": ["digits"], "models": ["tiny_1"], "methods": ["dense", "l1"], "seeds": [1]}},
}
DATA = "results/data/digits-0.safetensors"


def write(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)


def weights(sha256):
    """A safetensors file whose header says this checksum."""
    header = json.dumps({"__metadata__": {"sha256": sha256}}).encode()
    return len(header).to_bytes(8, "little") + header


def train(config, method, model="tiny_1", seed=1):
    """The result of a cell, made of what is there."""
    cell = grid.cell(config, dataset="digits", model=model, method=method, seed=seed)
    folder = Path(grid.folder(cell))
    inputs = [] if method == "dense" else [folder.parents[1] / "dense" / f"seed{seed}" / "start.safetensors"]
    recorded = made_of.record(cell, fit=code.ROOT / f"baselines/{method}.py", data=Path(DATA), inputs=inputs)
    metrics = {**cell, "made_of": recorded, "status": "done", "error": None}
    write(folder / "metrics.json", json.dumps({**metrics, "checksum": made_of.checksum(metrics)}))
    if method == "dense":
        write(folder / "start.safetensors", weights(f"weights of {seed}"))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A repository in small, with a finished table of two methods; its folder."""
    for module in (code, made_of):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(code, "HARNESS", tmp_path / "harness")
    monkeypatch.setattr(code, "TRAINER", tmp_path / "harness/runs/cell.py")
    monkeypatch.setattr(made_of, "KINDS", tmp_path / "harness/kinds")
    monkeypatch.setattr(made_of, "ZOO", tmp_path / "harness/networks/zoo.py")
    monkeypatch.setattr(names, "FOLDER", tmp_path / "architectures")
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        write(name, text)
    write(DATA, weights("data"))
    for method in ("dense", "l1"):
        train(CONFIG, method)
    return tmp_path


def stale(config=CONFIG):
    """The cells that have to be trained, by method and seed, with the reasons."""
    current = Current(config)
    objections = {f"{cell['method']}{cell['seed']}": current.objection(cell) for cell in grid.cells(config, "t")}
    return {name: objection for name, objection in objections.items() if objection}


def changed(section, name, **values):
    return {**CONFIG, section: {**CONFIG[section], name: {**(CONFIG[section][name]), **values}}}


def append(name, text):
    Path(name).write_text(Path(name).read_text() + text)


def test_what_is_there_is_current_whatever_the_times_of_files_say_and_wherever_it_was_copied(project, tmp_path):
    for number, path in enumerate(sorted(project.rglob("*"))):
        os.utime(path, (number, number))
    append("baselines/l1.py", "# a comment\n")
    append("workflow/baselines/l1.smk", "\n# a comment\n")
    append("architectures/other.py", "VALUE = 1\n")
    assert stale() == {}
    copy = shutil.copytree(project / "results", tmp_path / "elsewhere" / "results")
    os.chdir(copy.parent)
    assert stale() == {}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (changed("recipes", "quick", epochs=5), {"dense1", "l11"}),
        (changed("methods", "l1", prune_ratio=0.4), {"l11"}),
        (changed("datasets", "digits", split_seed=3), {"dense1", "l11"}),
        (changed("tables", "t", seeds=[1, 2]), {"dense2", "l12"}),
        (changed("tables", "t", models=["tiny_2"]), {"dense1", "l11"}),
        (
            {**changed("tables", "t", methods=["dense", "l1", "l1-30"]), "methods": {**CONFIG["methods"], "l1-30": {}}},
            {"l1-301"},
        ),
        ({**CONFIG, "tables": {"t": {**CONFIG["tables"]["t"], "methods": ["l1"]}}}, set()),
    ],
)
def test_another_configuration_asks_for_what_it_does_not_find(project, config, expected):
    assert stale(config).keys() == expected


def test_a_table_that_does_not_name_the_dense_network_notices_that_it_changed(project):
    config = changed("recipes", "quick", epochs=5)
    train(config, "l1")
    config["tables"] = {"t": {**CONFIG["tables"]["t"], "methods": ["l1"]}}
    assert "start.safetensors, which has to be made again: " in stale(config)["l11"]
    config["methods"] = {"l1": CONFIG["methods"]["l1"]}
    assert "'dense'" in stale(config)["l11"]


@pytest.mark.parametrize(
    ("name", "expected", "reason"),
    [
        ("architectures/tiny.py", {"dense1", "l11"}, "was made with another architectures/tiny.py"),
        ("architectures/shared.py", {"dense1", "l11"}, "was made with another architectures/tiny.py"),
        ("harness/kinds/classification.py", {"dense1", "l11"}, "was made with another harness/kinds/classification.py"),
        ("baselines/l1.py", {"l11"}, "was made with another baselines/l1.py"),
        ("baselines/dense.py", {"dense1", "l11"}, "was made with another baselines/dense.py"),
        ("workflow/baselines/l1.smk", {"l11"}, "was made with another workflow/baselines/l1.smk"),
        ("workflow/rules/dense.smk", {"dense1", "l11"}, "was made with another workflow/rules/dense.smk"),
    ],
)
def test_edited_code_makes_its_cells_stale_and_what_started_from_them(project, name, expected, reason):
    append(name, "\nEDITED = True\n")
    assert stale().keys() == expected and all(reason in objection for objection in stale().values())


def test_another_file_that_takes_over_the_name_of_a_network_counts(project):
    (project / "architectures/tiny.py").rename(project / "architectures/tidy.py")
    assert stale()["dense1"].endswith("was made without architectures/tidy.py")


def test_a_network_of_a_library_is_made_of_its_version_and_of_how_it_is_fitted(project, monkeypatch):
    config = changed("tables", "t", models=["resnet18"])
    for method in ("dense", "l1"):
        train(config, method, model="resnet18")
    append("architectures/tiny.py", "\nEDITED = True\n")
    assert stale(config) == {}
    append("harness/networks/zoo.py", "\nEDITED = True\n")
    assert all("was made with another harness/networks/zoo.py" in reason for reason in stale(config).values())
    write("harness/networks/zoo.py", FILES["harness/networks/zoo.py"])
    monkeypatch.setattr(made_of.metadata, "version", lambda package: f"9 of {package}")
    assert stale(config)["dense1"].endswith("and 9 of torchvision is installed") and len(stale(config)) == 2
    assert stale() == {name: reason for name, reason in stale().items() if "tiny.py" in reason}


@pytest.mark.parametrize(
    ("content", "expected"),
    [(weights("other data"), {"dense1", "l11"}), (None, set()), (b"damaged", set())],
)
def test_other_data_count_and_data_that_were_removed_to_save_space_do_not(project, content, expected):
    Path(DATA).unlink() if content is None else write(DATA, content)
    assert stale().keys() == expected


DENSE, L1 = (f"results/digits/tiny_1/{method}/seed1" for method in ("dense", "l1"))


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (f"{L1}/metrics.json", None, {"l11"}),
        (f"{DENSE}/metrics.json", None, {"dense1", "l11"}),
        (f"{DENSE}/start.safetensors", None, {"dense1", "l11"}),
        (f"{DENSE}/start.safetensors", weights("of another run"), {"l11"}),
        (f"{L1}/metrics.json", b"{", {"l11"}),
        (f"{L1}/metrics.json", b"[]", {"l11"}),
    ],
)
def test_deleted_damaged_or_foreign_files_make_their_cells_missing(project, path, content, expected):
    Path(path).unlink() if content is None else write(path, content)
    assert stale().keys() == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": "failed"}, "says that the cell failed"),
        ({"seed": 2}, "changed after it had been written"),
        ({"checksum": None}, "changed after it had been written"),
        ({"made_of": None}, "does not say what it was made of"),
        ({"made_of": {"code": []}}, "does not say what it was made of"),
        ({"config_hash": "0" * 16}, "was made with configuration 0000000000000000, but the plan says"),
    ],
)
def test_a_result_that_is_none_is_named(project, change, reason):
    metrics = {**json.loads(Path(L1, "metrics.json").read_text()), **change}
    if not change.keys() & {"seed", "checksum"}:
        metrics["checksum"] = made_of.checksum(metrics)
    write(f"{L1}/metrics.json", json.dumps(metrics))
    assert stale().keys() == {"l11"} and stale()["l11"].startswith(f"{L1}/metrics.json ") and reason in stale()["l11"]


def test_a_result_made_from_another_result_follows_it(project):
    config = {
        **changed("tables", "t", methods=["l1", "scratch-l1"]),
        "methods": {**CONFIG["methods"], "scratch-l1": {}},
    }
    cell = grid.cell(config, dataset="digits", model="tiny_1", method="scratch-l1", seed=1)
    recorded = made_of.record(cell, fit=project / "baselines/l1.py", data=Path(DATA), inputs=[Path(L1, "metrics.json")])
    metrics = {**cell, "made_of": recorded, "status": "done"}
    write(f"{grid.folder(cell)}/metrics.json", json.dumps({**metrics, "checksum": made_of.checksum(metrics)}))
    assert stale(config) == {}
    append("baselines/dense.py", "\nEDITED = True\n")
    assert stale(config).keys() == {"l11", "scratch-l11"}
    write("baselines/dense.py", FILES["baselines/dense.py"])
    other = {**json.loads(Path(L1, "metrics.json").read_text()), "test": {"top1": 1}}
    write(f"{L1}/metrics.json", json.dumps({**other, "checksum": made_of.checksum(other)}))
    assert stale(config).keys() == {"scratch-l11"} and "from another" in stale(config)["scratch-l11"]


def test_a_table_is_made_of_its_results_in_their_order():
    first, second = {"checksum": "a"}, {"checksum": "b"}
    assert len({rendered.wanted(results) for results in ([first, second], [second, first], [first], [{}])}) == 4
