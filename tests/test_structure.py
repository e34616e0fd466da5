"""The shape of the house: who imports whom, one environment, one style."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
OURS = {"edropout", "dropouts", "theory", "harness", "architectures", "baselines", "paper"}

# edropout and dropouts stay usable without the suite and each other; harness takes from edropout how a network is
# read and how units are removed, which know of no search, and from dropouts how a network is sampled; methods do not
# import each other; tables need no torch; theory takes readers of published data from harness and trains nothing that a
# cell trains.
MAY_IMPORT = {
    "edropout": {"edropout"},
    "dropouts": {"dropouts"},
    "harness": {"harness", "edropout.subnetworks", "dropouts.sampling"},
    "architectures": {"architectures"},
    "theory": {"theory", "dropouts", "harness.machine", "harness.data.prepared", "harness.sources"},
    "baselines": {"harness", "dropouts", "edropout.subnetworks"},
    "paper": {
        *("paper", "harness.runs.result", "harness.kinds"),
        *("harness.plan.code", "harness.plan.made_of", "harness.plan.rendered"),
    },
}
# What is in a room imports from its own and from those before it; what is in no room comes last.
ROOMS = {
    "edropout": ["subnetworks"],
    "harness": [
        *("config", "machine", "kinds", "data", "sources", "networks", "measure", "training", "pruning", "plan"),
        "runs",
    ],
    "paper": ["rows", "statistics", "tables", "figures", "theory", "report"],
}
NEEDS = {
    "edropout": {"torch"},
    "dropouts": {"torch"},
    "architectures": {"torch"},
    "theory": {"numpy", "pandas", "scipy", "torch"},
}
HEAVY = {"torch", "torchvision", "timm", "wandb", "sklearn"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert not node.level, f"{path} uses a relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known = node.module in OURS or ROOT.joinpath(*name.split(".")).with_suffix(".py").exists()
                yield name if known else node.module


def own_package(path):
    """The package of a method that needs more than one file."""
    parts = path.relative_to(ROOT).parts
    return {".".join(parts[:2])} if parts[0] == "baselines" and len(parts) > 2 else set()


@pytest.mark.parametrize("package", sorted(MAY_IMPORT))
def test_packages_import_only_what_they_may(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imported(path):
            if name.split(".")[0] in OURS:
                entries = MAY_IMPORT[package] | own_package(path)
                allowed = any(name == entry or name.startswith(f"{entry}.") for entry in entries)
                assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def room(package, parts):
    """The place of a module's room in the order of its package."""
    rooms = ROOMS[package]
    return rooms.index(parts[1]) if len(parts) > 1 and parts[1] in rooms else len(rooms)


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_imports_go_through_the_rooms_in_one_direction(package):
    for path in sorted((ROOT / package).rglob("*.py")):
        own = path.relative_to(ROOT).with_suffix("").parts
        assert len(own) < 3 or own[1] in ROOMS[package], f"{own[1]} has no place in the order of the rooms"
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == package and len(parts) > 1 and (ROOT / package / parts[1]).is_dir():
                assert room(package, parts) <= room(package, own), f"{'/'.join(own)} imports {name}: an arrow back up"


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_modules_of_a_room_do_not_import_each_other_in_circles(package):
    files = sorted((ROOT / package).rglob("*.py"))
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    arrows = {name: {other for other in imported(path) if other in modules} for name, path in modules.items()}
    while leaves := {name for name, others in arrows.items() if not others & arrows.keys()}:
        arrows = {name: others for name, others in arrows.items() if name not in leaves}
    assert not arrows, f"these import each other in a circle: {', '.join(arrows)}"


def test_the_picture_of_the_rooms_is_current(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import rooms

    assert rooms.drawing() in rooms.PAGE.read_text(encoding="utf-8"), "run `python docs/rooms.py`"


@pytest.mark.parametrize("package", sorted(NEEDS))
def test_the_libraries_need_torch_alone_and_theory_little_more(package):
    for path in (ROOT / package).rglob("*.py"):
        foreign = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - OURS
        assert foreign <= NEEDS[package], f"{path.relative_to(ROOT)} imports {foreign}"


LIGHT = ["harness.plan.grid", "harness.run", "harness.status", "harness.runs.result", "paper.rows.collect"]


@pytest.mark.parametrize("module", LIGHT)
def test_planning_and_collecting_start_without_heavy_imports(module):
    code = f"import sys, {module}; print(*sorted({HEAVY!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""


def lock():
    """Versions in requirements.lock that hold for Python 3.11 on Linux."""
    lines = (ROOT / "envs" / "requirements.lock").read_text().splitlines()
    pins = [re.match(r"([a-z0-9._-]+)==(\S+)(?: ; (.*?))? \\$", line) for line in lines]
    return {pin[1]: pin[2] for pin in pins if pin and "python_full_version >= '3.12'" not in (pin[3] or "")}


@pytest.mark.parametrize("name", ["suite", "paper"])
def test_conda_environments_have_the_versions_of_the_lock(name):
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    pins = dict(entry.split("==") for entry in environment["dependencies"][-1]["pip"])
    assert pins and all(lock()[package] == version for package, version in pins.items())


def test_the_lock_names_no_address_and_has_a_hash_for_every_package():
    text = (ROOT / "envs" / "requirements.lock").read_text()
    assert "://" not in text and "index-url" not in text
    packages = re.findall(r"^[a-z0-9._-]+==.*?(?=^\S|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    assert len(packages) > 100 and all("--hash=sha256:" in package for package in packages)


def run(*command):
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_python_style():
    run(sys.executable, "-m", "ruff", "check", "--quiet", ".")
    run(sys.executable, "-m", "ruff", "format", "--check", "--quiet", ".")


def test_snakefile_style():
    run(sys.executable, "-m", "snakefmt", "--check", "Snakefile", "workflow")


def test_snakemake_lint():
    run(sys.executable, "-m", "snakemake", "--lint")


def test_every_test_file_has_a_name_of_its_own():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names)), "pytest collects one of two files of the same name"
