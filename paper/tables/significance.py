"""The paired tests over seeds as a table to be read."""

from __future__ import annotations

import pandas

from harness import kinds
from paper.statistics.paired import PAIRS_FOR_RANKS
from paper.tables.page import NONE, Cell, Table, plain, text


def short_paired_table(paired: pandas.DataFrame, title: str) -> Table:
    """The lines of `paired_tests` that show a difference, and the others in a sentence for each result."""
    shown = paired["result"].isin(["better", "worse"])
    table = paired_table(paired, title, shown=paired[shown])
    for result, part in paired[~shown].groupby("result", sort=False):
        places = [f"{model}: {', '.join(group['method'])}" for model, group in part.groupby("model", sort=False)]
        table.notes.append(f"{str(result).capitalize()}, {len(part)} of {len(paired)} lines. {'; '.join(places)}.")
    return table


def paired_table(
    paired: pandas.DataFrame, title: str = "Paired tests over seeds", shown: pandas.DataFrame | None = None
) -> Table:
    """What `paired_tests` gives to be read, or of it the lines `shown`."""
    columns = ["Dataset", "Model", "Method", "n", "Difference", "95 % (t)", "95 % (bootstrap)"]
    columns += ["p (t)", "Holm", "p (Wilcoxon)", "Holm", "Result"]
    rows = [
        [
            *(text(row.dataset), text(row.model), text(row.method), plain(row.pairs)),
            plain(row.difference, digits := kinds.named(row.kind).main.digits),
            *(_interval(row.t_low, row.t_high, digits), _interval(row.bootstrap_low, row.bootstrap_high, digits)),
            *(plain(row.t_p, 4), plain(row.t_p_holm, 4), plain(row.wilcoxon_p, 4), plain(row.wilcoxon_p_holm, 4)),
            text(row.result),
        ]
        for row in (paired if shown is None else shown).itertuples()
    ]
    reference = paired["reference"].iloc[0] if len(paired) else NONE
    caption = (
        f"Difference in test {_units(paired) or 'metrics'}, to {reference} with the same seed. p-values of the paired "
        "t test and of Wilcoxon's signed-rank test, each also corrected by Holm over all lines of the whole table; "
        f"percentile bootstrap over seeds; the last two from {PAIRS_FOR_RANKS} seeds on. Result: by the corrected t "
        "test at 5 %."
    )
    return Table(title, caption, columns, rows, left=3, last_text=True)


def equal_time_table(tests: pandas.DataFrame) -> Table:
    """What `equal_time` gives, to be read."""
    columns = ["Model", "Against", "Method", "Recipe of", "Epochs", "Time ratio", "n", "Difference", "95 % (t)"]
    columns += ["p (t)", "Holm", "Result"]
    rows = [
        [
            *(text(row.model), text(row.reference), text(row.method), text(row.dataset)),
            *(plain(row.epochs), plain(row.time_ratio, 2), plain(row.pairs)),
            plain(row.difference, digits := kinds.named(row.kind).main.digits),
            *(_interval(row.t_low, row.t_high, digits), plain(row.t_p, 4), plain(row.t_p_holm, 4), text(row.result)),
        ]
        for row in tests.itertuples()
    ]
    caption = (
        f"Difference in test {_units(tests) or 'metrics'}, to the dense network and to the dropout that validation "
        "prefers, both with the shortest recipe. A method stands with its longest recipe that takes no more training "
        "time (of processors where training was on one), or with the shortest if all take more: see the time ratio. "
        "Paired by seeds, Student's t, corrected by Holm over all lines."
    )
    return Table("At equal training time", caption, columns, rows, left=4, last_text=True)


def _units(paired: pandas.DataFrame) -> str:
    """The metrics in words: "top-1, in percentage points"."""
    found = [kinds.named(name).main for name in paired["kind"].unique()]
    return " or ".join(f"{main.words}, in percentage points" if main.unit == "%" else main.words for main in found)


def _interval(low: float, high: float, digits: int) -> Cell:
    return Cell(NONE) if pandas.isna(low) else Cell(f"{low:.{digits}f} to {high:.{digits}f}", low)
