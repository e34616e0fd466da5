"""Whether predictions are as sure as they are right, for data whose cells measured it."""

from __future__ import annotations

import pandas

from harness import kinds
from paper.tables.page import Table, mean, plain, text

CAPTION = (
    "Mean ± 95 % interval (Student's t) over n seeds, on the test set. Loss: negative log-likelihood. Brier score: "
    "mean squared distance of the probabilities from the answer, summed over classes. ECE: expected calibration error "
    "in 15 bins. AUROC of outliers: how often an image of the other dataset has a prediction of more entropy than a "
    "test image. A row named (sampled) averages the probabilities of passes that draw."
)


def calibration(dataset: str, part: pandas.DataFrame) -> Table | None:
    """The table of one dataset; None if no cell measured its calibration.

    Args:
        dataset: Its name.
        part: Its rows of `summary.summarise`.
    """
    kind = kinds.named(part["kind"].iloc[0])
    further = [metric for metric in kind.calibration if metric.name in part and part[metric.name].notna().any()]
    if not further:
        return None
    shown = [kind.main, *(metric for metric in kind.metrics if metric.name == "loss"), *further]
    rows = [
        [
            *(text(row.model), text(row.method), plain(row.n)),
            *(
                mean(getattr(row, one.name), getattr(row, f"{one.name}_half"), digits=one.digits, scale=one.scale)
                for one in shown
            ),
        ]
        for row in part.itertuples()
    ]
    return Table(f"Calibration: {dataset}", CAPTION, ["Model", "Method", "n", *(one.heading for one in shown)], rows)
