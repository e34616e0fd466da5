"""A figure and the tidy data it is drawn from, written together: CSV, PNG and PDF with the same bytes every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pandas
from matplotlib import pyplot
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from paper.figures.style import STYLES


@dataclass(frozen=True)
class Plot:
    """One picture.

    Attributes:
        name: File name without suffix.
        caption: A sentence that says what is shown.
        data: Everything that is drawn, tidy.
        draw: Draws from `data` and nothing else.
    """

    name: str
    caption: str
    data: pandas.DataFrame
    draw: Callable[[pandas.DataFrame], Figure]


def save(plot: Plot, folder: Path) -> None:
    """Write `<name>.csv`, `.png` and `.pdf`; what is drawn is what the CSV holds, rounding included."""
    csv = plot.data.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    (folder / f"{plot.name}.csv").write_text(csv, encoding="utf-8")
    with pyplot.style.context(STYLES):
        figure = plot.draw(pandas.read_csv(StringIO(csv), keep_default_na=True))
        # The layout is solved once; savefig would solve or measure it again for each file, a third of all time.
        figure.get_layout_engine().execute(figure)
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure).print_png(folder / f"{plot.name}.png", metadata={"Software": None})
        no_dates = dict.fromkeys(("Creator", "Producer", "CreationDate"))
        FigureCanvasPdf(figure).print_pdf(folder / f"{plot.name}.pdf", metadata=no_dates)
    pyplot.close(figure)
