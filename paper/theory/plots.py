"""One figure for each theorem, drawn from the rows of its experiments."""

from __future__ import annotations

from collections.abc import Callable

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from paper.figures.canvas import Plot
from paper.figures.style import COLOURS, DASHES, MARKERS, grid, legend_below, plain_log_ticks
from paper.theory.verdicts import NAMES


def plot(theorem: str, rows: pandas.DataFrame) -> Plot | None:
    """The figure of a theorem, by the name of its file; None if nothing was measured."""
    caption, draw = FIGURES[theorem]
    return None if rows.empty else Plot(theorem, caption, rows, draw)


def draw_matrix_completion(rows: pandas.DataFrame) -> Figure:
    """Paths of training, ratio of penalty and norm, gap, and effective rank."""
    figure, axes = grid(4, height=1.9, columns=2)
    paths = rows[rows["quantity"].eq("objective")]
    for rate, part in paths.groupby("keep_rate"):
        for training, line in part.groupby("training"):
            dash = DASHES[0] if training == "dropout" else DASHES[2]
            axes[0].plot(line["step"], line["value"], color="#555", ls=dash)
        last = part.loc[part["step"].idxmax()]
        axes[0].annotate(f" drops {1 - rate:.1f}", (last["step"], last["value"]), va="center")
    axes[0].set(title="explicit objective along training", xlabel="step", yscale="log")
    axes[0].set_xlim(0, 1.25 * paths["step"].max())
    plain_log_ticks(axes[0].yaxis)
    for axis, quantities in ((axes[1], ["weighted_ratio", "unweighted_ratio"]), (axes[3], ["effective_rank"])):
        by_rate(axis, rows, quantities)
    axes[1].axhspan(1, 1.05, color="#000000", alpha=0.08, lw=0)
    axes[1].set(title="R x width / trace norm$^2$ (dashed: without weights)")
    axes[3].set(title="effective rank", ylim=(0, None))
    by_rate(axes[2], gaps(rows), ["gap"])
    axes[2].set(title="test loss - training loss", ylim=(0, None))
    handles = [Line2D([], [], color="#555", ls=DASHES[0], label="trained with dropout (first panel)")]
    handles.append(Line2D([], [], color="#555", ls=DASHES[2], label="trained on the objective"))
    legend_below(figure, [*handles, *data_handles(rows)])
    return figure


def draw_hidden_layer(rows: pandas.DataFrame) -> Figure:
    """Regulariser and gap by drop rate, and one against the other."""
    figure, axes = grid(3, height=1.9)
    by_rate(axes[0], rows, ["regulariser"])
    axes[0].set(title=r"$\Sigma_i\, ||u_i||^2\, E\, a_i^2$ after training", yscale="log")
    by_rate(axes[1], rows, ["gap"])
    axes[1].set(title="test loss - training loss", ylim=(0, None))
    for number, (_, group) in enumerate(rows.groupby("data", sort=False)):
        part = group.pivot(index=["keep_rate", "seed"], columns="quantity", values="value")
        axes[2].plot(part["regulariser"], part["gap"], color=COLOURS[number], marker=MARKERS[number + 1], ls="none")
    axes[2].set(title="one dot for each network", xlabel="regulariser", ylabel="gap", xscale="log")
    plain_log_ticks(axes[0].yaxis)
    plain_log_ticks(axes[2].xaxis)
    legend_below(figure, data_handles(rows))
    return figure


def draw_linear_networks(rows: pandas.DataFrame) -> Figure:
    """Singular values that training found, beside the closed form, one panel for each setting."""
    settings = ["kind", "block", "keep_rate", "inputs"]
    rows = rows[rows["index"].notna()]
    groups = list(rows.groupby(settings, sort=False))
    figure, axes = grid(len(groups), height=1.55, columns=4, sharey=True)
    for axis, ((kind, block, keep_rate, inputs), part) in zip(axes, groups, strict=True):
        found, closed = (part[part["quantity"].eq(name)] for name in ("singular_value", "closed_form"))
        axis.plot(closed["index"], closed["value"], color="#000000")
        axis.plot(found["index"], found["value"], color=COLOURS[0], marker="o", ls="none", ms=2.5)
        size = f" of {block:.0f}" if kind == "dropblock" else ""
        axis.set(title=f"{kind}{size}, drops {1 - keep_rate:.1f}\n{inputs} inputs", xlabel="singular value")
    found = Line2D([], [], color=COLOURS[0], marker="o", ls="none", ms=2.5, label="SGD with sampled masks")
    legend_below(figure, [Line2D([], [], color="#000000", label="closed form"), found])
    return figure


def draw_relu_networks(rows: pandas.DataFrame) -> Figure:
    """Test error against steps: full and sub-networks, margins, widths."""
    figure, axes = grid(3, height=2.2, sharey=True)
    rows = rows[rows["value"] > 0]
    margin = rows.groupby("margin")["width"].nunique().idxmax()
    width = rows.groupby("width")["margin"].nunique().idxmax()
    base = rows["margin"].eq(margin) & rows["width"].eq(width)
    for network, dash, label in (("full", DASHES[0], "full network"), ("sub", DASHES[1], "sub-networks")):
        line = rows[base & rows["network"].eq(network)]
        axes[0].plot(line["step"], line["value"], color=COLOURS[0], ls=dash, marker="o", label=label)
    steps = sorted(rows.loc[base, "step"].unique())
    axes[0].plot(steps, [30 / step for step in steps], color="#000000", lw=0.7, ls=DASHES[2], label="30 / steps")
    axes[0].set(title=f"margin {margin:g}, {width:.0f} hidden units")
    for axis, name, fixed in (
        (axes[1], "margin", rows["width"].eq(width)),
        (axes[2], "width", rows["margin"].eq(margin)),
    ):
        for number, (value, part) in enumerate(rows[fixed].groupby(name)):
            for network, dash in (("full", DASHES[0]), ("sub", DASHES[1])):
                line = part[part["network"].eq(network)]
                name_once = f"{value:g}" if network == "full" else None
                axis.plot(line["step"], line["value"], color=COLOURS[number], ls=dash, label=name_once)
        axis.set(title=f"by {name}")
        axis.legend(title=name, loc="lower left")
    axes[0].legend(loc="lower left")
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="steps")
    axes[0].set_ylabel("test error")
    return figure


def by_rate(axis: Axes, rows: pandas.DataFrame, quantities: list[str]) -> None:
    """Means over seeds against the drop rate, a colour for each data and a dash for each quantity."""
    for number, (_, part) in enumerate(rows.groupby("data", sort=False)):
        for dash, quantity in zip(DASHES, quantities, strict=False):
            mean = part[part["quantity"].eq(quantity)].groupby("keep_rate")["value"].mean()
            axis.plot(1 - mean.index, mean, color=COLOURS[number], marker=MARKERS[number + 1], ls=dash)
    axis.set_xlabel("drop rate")


def data_handles(rows: pandas.DataFrame) -> list[Line2D]:
    """Entries of a legend for the data, coloured as `by_rate` does."""
    return [
        Line2D([], [], color=COLOURS[number], marker=MARKERS[number + 1], label=NAMES.get(data, data))
        for number, data in enumerate(rows["data"].unique())
    ]


def gaps(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Rows of the gap between test and training loss."""
    keys = ["data", "keep_rate", "seed"]
    test, train = (rows[rows["quantity"].eq(name)].set_index(keys)["value"] for name in ("test_loss", "train_loss"))
    return (test - train).reset_index().assign(quantity="gap")


FIGURES: dict[str, tuple[str, Callable[[pandas.DataFrame], Figure]]] = {
    "matrix_completion": (
        "Dropout for matrix completion. Means over two seeds; the grey band is within 5 % of 1.",
        draw_matrix_completion,
    ),
    "hidden_layer": (
        "Dropout on the hidden layer of a network trained on 2,000 images. Lines are means over two seeds.",
        draw_hidden_layer,
    ),
    "linear_networks": (
        "Singular values of a linear network after SGD with sampled masks, and of the global minimum in closed form.",
        draw_linear_networks,
    ),
    "relu_networks": (
        "Test error of two-layer ReLU networks against steps of SGD, a mean over eight problems; solid: full network, "
        "dashed: random sub-networks. A line ends where no error is left "
        "or nothing more was measured.",
        draw_relu_networks,
    ),
}
