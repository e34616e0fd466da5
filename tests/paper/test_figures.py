"""Figures are drawn from the CSV beside them, look whole, and have the same bytes every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pandas
import pytest
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from paper.figures import canvas, curves, layers, ranking_plot, speed, style
from paper.figures.canvas import Plot

ROOT = Path(__file__).resolve().parents[2]
TWENTY = [
    *("dense", "dropout", "edropout", "edropout-30", "l1-30", "l1-50", "l1-70", "l1-90", "random-30", "random-50"),
    *("thinet", "channelnet", "deep_compression", "ipruning", "advanced", "variational", "concrete", "ard", "scratch"),
    "early_dropout_with_a_long_name",
]


def drawn(csv, render):
    folder = render(csv) / "figures"
    return folder, [entry["name"] for entry in json.loads((folder / "index.json").read_text())]


def test_all_subjects_are_drawn_as_png_pdf_and_csv(make_table, render):
    models = ("resnet8", "vgg8", "resnet18", "resnet34", "resnet50")
    folder, names = drawn(make_table(models=models), render)
    subjects = ["accuracy-digits", "pareto-digits", "critical-difference", "training-digits", "energy-digits"]
    subjects += ["kept-over-training-digits", "diversity-digits", "step-time-digits"]
    assert names == [*subjects, *(f"layers-digits-{model}" for model in models)]
    expected = {f"{name}.{suffix}" for name in names for suffix in ("png", "pdf", "csv")} | {"index.json"}
    assert {path.name for path in folder.iterdir()} == expected


RC = """
text.usetex: True
interactive: True
figure.facecolor: pink
font.family: serif
font.size: 20
lines.linewidth: 9
axes.formatter.use_locale: True
path.simplify: False
"""
"""A user's matplotlibrc."""


def test_bytes_are_equal_when_drawn_by_several_processes_for_a_user_of_other_settings(make_table, render, tmp_path):
    csv = make_table(models=("resnet8", "vgg8"), methods=("dense", "edropout", "l1", "random", "thinet"))
    folder, _ = drawn(csv, render)
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = tmp_path / "again"
    options = ["--csv", csv, "--statistics", folder.parent / "statistics", "--out", again, "--jobs", "2"]
    (tmp_path / "matplotlibrc").write_text(RC)
    notebook = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": str(tmp_path)}
    environment = {**os.environ, **notebook, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "paper.figures.draw", *options], env=environment, cwd=tmp_path, check=True)
    assert {path.name: path.read_bytes() for path in again.iterdir()} == first


@pytest.mark.parametrize(
    "shape",
    [
        {"seeds": (1,)},
        {"methods": TWENTY, "seeds": (1, 2)},
        {"models": ("resnet8", "vgg8", "resnet18", "resnet34"), "methods": ("dense", "edropout")},
        {"methods": ("l1-50",)},
    ],
)
def test_nothing_is_drawn_up_to_the_edge_of_a_picture(make_table, render, shape):
    folder, names = drawn(make_table(**shape), render)
    for name in names:
        pixels = numpy.asarray(Image.open(folder / f"{name}.png").convert("L"))
        edge = numpy.concatenate(
            [pixels[:2].ravel(), pixels[-2:].ravel(), pixels[:, :2].ravel(), pixels[:, -2:].ravel()]
        )
        assert edge.min() > 250, f"{name} is clipped"
        assert pixels.shape[1] <= 1400 and pixels.shape[0] <= 2400, f"{name} is larger than a page"


def test_no_axes_are_empty_and_no_legend_covers_them(make_table, render, monkeypatch):
    seen = []
    close = pyplot.close

    def inspect(figure):
        drawing = FigureCanvasAgg(figure)
        drawing.draw()
        renderer = drawing.get_renderer()
        for ax in figure.axes:
            seen.append(ax.has_data())
            for legend in figure.legends:
                assert not legend.get_window_extent(renderer).overlaps(ax.get_window_extent(renderer))
        close(figure)

    monkeypatch.setattr(canvas.pyplot, "close", inspect)
    drawn(make_table(models=("resnet8", "vgg8"), methods=TWENTY, seeds=(1,)), render)
    assert len(seen) > 20 and all(seen)


def test_a_loss_that_falls_below_zero_is_drawn_on_a_linear_axis(make_table, render, tmp_path, monkeypatch):
    """As with a penalty that is known up to a constant."""

    def lower(cells):
        for path in (tmp_path / "results").rglob("history.csv"):
            history = pandas.read_csv(path)
            history.assign(train_loss=history["train_loss"] - 1).to_csv(path, index=False)

    scales, close = [], pyplot.close

    def note(figure):
        scales.extend((ax.get_title(), ax.get_yscale()) for ax in figure.axes)
        close(figure)

    monkeypatch.setattr(canvas.pyplot, "close", note)
    for name, change, scale in (("lower", lower, "linear"), ("as_it_is", None, "log")):
        scales.clear()
        drawn(make_table(name, methods=("dense",), seeds=(1, 2), change=change), render)
        assert ("resnet8: training loss", scale) in scales


def test_a_table_without_histories_or_edropout_leaves_those_figures_out(make_table, render, tmp_path):
    def lose_histories(cells):
        for path in (tmp_path / "results").rglob("history.csv"):
            path.unlink()

    _, names = drawn(make_table(methods=("dense", "l1-50"), change=lose_histories), render)
    assert names == ["accuracy-digits", "pareto-digits", "step-time-digits", "layers-digits-resnet8"]


def test_a_method_looks_the_same_in_every_table():
    methods = ["dense", "edropout", "l1", "random", "thinet", "mine", "edropout-30"]
    alone = {name: style.looks([name])[name] for name in methods}
    assert style.looks(methods) == alone == style.looks(methods[::-1])


def test_twenty_methods_can_be_told_apart():
    looks = style.looks(TWENTY)
    assert len({(look.colour, look.marker) for look in looks.values()}) == 20
    assert len({(look.colour, str(look.dash)) for look in looks.values()}) == 20
    assert looks["dense"].colour == "#000000" and looks["l1-30"].colour == looks["l1-90"].colour


def test_the_freeze_is_the_median_of_the_first_frozen_epochs():
    rows = [(seed, epoch, int(epoch >= first)) for seed, first in ((1, 3), (2, 5), (3, 4)) for epoch in range(1, 7)]
    history = pandas.DataFrame(rows, columns=["seed", "epoch", "frozen"]).assign(dataset="d", model="m", method="e")
    assert curves.freezes(history)["freeze"].tolist() == [4.0]


def test_energies_end_at_the_freeze_of_their_seed_and_the_kept_ratio_goes_on():
    rows = [(seed, epoch, int(epoch >= first)) for seed, first in ((1, 2), (2, 3)) for epoch in range(1, 5)]
    history = pandas.DataFrame(rows, columns=["seed", "epoch", "frozen"]).assign(dataset="d", model="m", method="e")
    history = history.assign(best_energy=-history["epoch"].astype(float), kept_ratio=0.5)
    energy = curves.tidy(history, ["best_energy"])
    assert energy["epoch"].tolist() == [1, 2, 3] and energy["n"].tolist() == [2, 2, 1]
    assert curves.tidy(history, ["kept_ratio"])["epoch"].tolist() == [1, 2, 3, 4]


def test_an_axis_is_framed_by_the_means_and_passes_no_limit_by_far():
    assert style.frame([90.0, 95.0], least=1, room=0.4, low=0, high=100) == (88, 97)
    assert style.frame([95.0, 95.0], least=1, room=0.4) == (94.5, 95.5)
    low, high = style.frame([50.0, 100.0, float("nan")], least=1, room=0.4, low=0, high=100)
    assert low == 30 and 100 < high < 105


@pytest.mark.parametrize(("device", "first"), [("cpu", 3.0), ("cuda", 1.5)])
def test_step_times_are_paired_by_seed_and_of_processors_where_training_was_on_one(device, first):
    line = {"dataset": "d", "model": "m", "evaluation": "pruned", "latency_device": device, "train_seconds": 2.0}
    times = {("dense", 1): 10.0, ("dense", 2): 20.0, ("edropout", 1): 15.0, ("edropout", 2): 50.0}
    rows = pandas.DataFrame(
        [{**line, "method": name, "seed": seed, "step_ms": ms} for (name, seed), ms in times.items()]
    ).assign(train_cpu_seconds=[1.0, 1.0, 2.0, 1.0])
    ratio = speed.ratios(rows).set_index("method")["ratio"]
    assert ratio["dense"] == 1 and ratio["edropout"] == pytest.approx((first + 2.5) / 2)


def test_a_network_of_many_layers_fits(tmp_path):
    names = [f"layer{index // 10}.{index % 10}.conv2" for index in range(160)]
    table = pandas.DataFrame({"layer": names, "kept_ratio": 0.5}).assign(dataset="d", model="m", method="l1")
    plot = next(layers.plots(table, planned=table))
    canvas.save(plot, tmp_path)
    assert Image.open(tmp_path / "layers-d-m.png").size[0] == 1400


def test_what_is_drawn_is_what_the_csv_holds(tmp_path):
    given = []
    data = pandas.DataFrame({"x": [1 / 3], "y": [2]})
    canvas.save(Plot("p", "", data, lambda frame: given.append(frame) or pyplot.subplots()[0]), tmp_path)
    pandas.testing.assert_frame_equal(given[0], pandas.read_csv(tmp_path / "p.csv"))
    assert given[0]["x"][0] == 0.333333


def test_a_method_keeps_its_colour_where_another_is_missing_and_the_heat_map_names_it(make_table, render, monkeypatch):
    given = {}
    original = ranking_plot.plots

    def seen(statistics, look):
        given.update(look)
        yield from original(statistics, look)

    monkeypatch.setattr(ranking_plot, "plots", seen)
    methods = ("dense", "l1-30", "thinet", "random-30")

    def lose(cells):
        for cell in cells:
            if cell["method"] == "l1-30":
                Path(cell["path"]).unlink()

    folder = render(make_table(methods=methods, change=lose))
    assert given == style.looks(methods)
    index = json.loads((folder / "figures" / "index.json").read_text())
    captions = [entry["caption"] for entry in index if entry["name"].startswith("layers-")]
    assert captions and all("Without a finished cell that lists its layers: l1-30." in caption for caption in captions)


def test_the_band_of_what_is_never_negative_ends_at_zero():
    values = {"epoch": [1, 2], "mean": [0.1, 0.2], "half": [0.5, 0.5], "method": "edropout", "quantity": "diversity"}
    figure, ax = pyplot.subplots()
    curves.draw_lines(ax, pandas.DataFrame(values), style.looks(["edropout"]))
    assert ax.collections[0].get_paths()[0].vertices[:, 1].min() == 0
    pyplot.close(figure)
