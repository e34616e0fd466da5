"""Figures over training: losses and accuracy, energies with the freeze, kept ratio, diversity of the population."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness import kinds
from paper.figures.canvas import Plot
from paper.figures.style import DASHES, Look, frame, grid, in_turn, legend_below, plain_log_ticks, present
from paper.rows.summary import aggregate

PLACE = ["dataset", "model", "method", "epoch"]
VALIDATION = {f"val_{kind.main.name}": kind.main for kind in map(kinds.named, kinds.names())}
"""Column of a history -> main metric of a kind."""
LABELS = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    **{name: f"validation {main.axis}" for name, main in VALIDATION.items()},
    "best_energy": "best state",
    "mean_energy": "population mean",
    "kept_ratio": "kept ratio (%)",
    "diversity": "diversity of the population",
}
PERCENT = ("kept_ratio", *(name for name, main in VALIDATION.items() if main.unit == "%"))
NEVER_NEGATIVE = ("kept_ratio", "diversity")
BANDS = 6
"""Methods up to whose number intervals are drawn as bands: those of more would hide each other's lines."""


def plots(history: pandas.DataFrame, look: dict[str, Look]) -> Iterator[Plot]:
    """All curves that the histories hold, one figure per dataset and subject.

    Args:
        history: One row per cell and epoch (`paper.rows.collect.history`).
        look: Of each method of the table.
    """
    subjects = {
        "training": (
            ["train_loss", *VALIDATION],
            "Training and validation over epochs; methods that start from the dense network join later. The axis of "
            "the validation shows the second half.",
        ),
        "energy": (
            ["best_energy", "mean_energy"],
            "Energy of the best state (solid) and mean of the population (dashed); the dotted line marks where the "
            "state was frozen (median over seeds), after which no energy is measured.",
        ),
        "kept-over-training": (["kept_ratio"], "Kept ratio of the best state over training, as the method reports it."),
        "diversity": (
            ["diversity"],
            "Diversity of the population until its state is frozen; 0: all are one.",
        ),
    }
    for dataset in history["dataset"].unique():
        part = history[history["dataset"] == dataset]
        for subject, (quantities, caption) in subjects.items():
            data = tidy(part, [name for name in quantities if name in part and part[name].notna().any()])
            if not data.empty:
                by_model = partial(draw_by_model, quantities=quantities)
                draw = partial(draw_training, look=look) if subject == "training" else by_model
                crowd = subject == "training" and data["method"].nunique() > BANDS
                band = "" if crowd else "; the band is the 95 % interval, cut by the panel"
                shown = f"{dataset}: {caption} Mean over seeds{band}."
                yield Plot(f"{subject}-{dataset}", shown, data, draw)


def tidy(history: pandas.DataFrame, quantities: list[str]) -> pandas.DataFrame:
    """Mean and interval over seeds of each quantity, with the epoch of the freeze beside it."""
    known = history.dropna(subset=quantities, how="all") if quantities else history.iloc[:0]
    if "frozen" in known and not {"kept_ratio", *VALIDATION} & set(quantities):
        # A frozen search evaluates no candidates: there is no energy and no diversity to show.
        known = known[known["epoch"] <= freeze_by_seed(known)]
    if known.empty:
        return known
    wide = aggregate(known, PLACE, quantities)
    parts = [
        wide[PLACE].assign(
            quantity=name,
            mean=wide[name] * (100 if name in PERCENT else 1),
            half=wide[f"{name}_half"] * (100 if name in PERCENT else 1),
            n=wide[f"{name}_n"],
        )
        for name in quantities
    ]
    long = pandas.concat(parts, ignore_index=True).dropna(subset="mean")
    return long.merge(freezes(known), how="left", on=PLACE[:3]) if "frozen" in known else long.assign(freeze=None)


def freeze_by_seed(history: pandas.DataFrame) -> pandas.Series:
    """First frozen epoch of each row's cell; infinite where it never froze."""
    epoch = history["epoch"].where(history["frozen"].eq(1), math.inf)
    return epoch.groupby([history[key] for key in (*PLACE[:3], "seed")]).transform("min")


def freezes(history: pandas.DataFrame) -> pandas.DataFrame:
    """First frozen epoch of each (dataset, model, method), the median over the seeds that froze."""
    first = history[history["frozen"].eq(1)].groupby([*PLACE[:3], "seed"], sort=False)["epoch"].min()
    return first.groupby(PLACE[:3], sort=False).median().rename("freeze").reset_index()


def draw_training(data: pandas.DataFrame, look: dict[str, Look]) -> Figure:
    """Two panels per model: training loss, and the main metric on validation as it is in the second half."""
    models, look = list(data["model"].unique()), present(look, data["method"])
    panels = ["train_loss", next(name for name in VALIDATION if name in set(data["quantity"]))]
    figure, axes = grid(2 * len(models), height=2.4, columns=2)
    for number, ax in enumerate(axes):
        model, quantity = models[number // 2], panels[number % 2]
        part = data[(data["model"] == model) & (data["quantity"] == quantity)]
        draw_lines(ax, part, look, bands=len(look) <= BANDS)
        late = part[part["epoch"] > part["epoch"].max() / 2]["mean"]
        ax.set(title=f"{model}: {LABELS[quantity]}", ylabel="")
        ax.set_xlabel("epoch" if number // 2 == len(models) - 1 else "")
        if quantity in PERCENT:
            ax.set_ylim(frame(late, least=1, room=0.1, low=0, high=100))
        elif quantity != "train_loss":
            ax.set_ylim(frame(late, least=1e-6, room=0.1))
        elif part["mean"].min() > 0:  # with a penalty that is known up to a constant a loss may be negative
            ax.set_yscale("log")
            ax.set_ylim(part["mean"].min() / 1.5, part["mean"].max() * 1.5)
            plain_log_ticks(ax.yaxis)
    legend_below(figure, [Line2D([], [], color=look[name].colour, ls=look[name].dash, label=name) for name in look])
    return figure


def draw_by_model(data: pandas.DataFrame, quantities: list[str]) -> Figure:
    """One panel per model; several quantities differ by their dash."""
    models, look = list(data["model"].unique()), in_turn(data["method"])
    figure, axes = grid(len(models))
    several = len(quantities) > 1
    for ax, model in zip(axes, models, strict=True):
        part = data[data["model"] == model]
        draw_lines(ax, part, look, dashes=dict(zip(quantities, DASHES, strict=False)) if several else None)
        for method, freeze in part.groupby("method", sort=False)["freeze"].first().dropna().items():
            ax.axvline(freeze, color=look[method].colour, ls=(0, (1, 1.5)), lw=0.9)
        ax.set(title=model, xlabel="epoch", ylabel="energy" if several else LABELS[quantities[0]])
    handles = [
        Line2D([], [], color=look[name].colour, ls="-" if several else look[name].dash, label=name) for name in look
    ]
    if several:
        handles += [Line2D([], [], color="#555", ls=DASHES[i], label=LABELS[name]) for i, name in enumerate(quantities)]
    if data["freeze"].notna().any():
        handles.append(Line2D([], [], color="#555", ls=(0, (1, 1.5)), lw=0.9, label="state frozen"))
    legend_below(figure, handles)
    return figure


def draw_lines(
    ax: Axes,
    part: pandas.DataFrame,
    look: dict[str, Look],
    dashes: dict[str, Any] | None = None,
    *,
    bands: bool = True,
) -> None:
    """Means, with their intervals as bands; dashed like the method, or by the quantity where `dashes` says so."""
    marker = "o" if part["epoch"].nunique() == 1 else None  # A single epoch is a point.
    for (method, quantity), line in part.groupby(["method", "quantity"], sort=False):
        style = look[method]
        dash = dashes[quantity] if dashes else style.dash
        epoch, mean, half = (line[name].to_numpy(float) for name in ("epoch", "mean", "half"))
        ax.plot(epoch, mean, color=style.colour, ls=dash, marker=marker)
        if bands and not numpy.isnan(half).all():
            low = mean - half if quantity not in NEVER_NEGATIVE else numpy.maximum(mean - half, 0)
            ax.fill_between(epoch, low, mean + half, color=style.colour, alpha=0.15, lw=0)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
