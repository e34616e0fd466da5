"""Which cells have the result that a configuration asks for now: Snakemake, the status and the estimate ask here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from harness.machine.files import read_json
from harness.plan import grid
from harness.plan.configuration import Config, ConfigError
from harness.plan.made_of import Present, checksum, objection, section

IN_A_CELL = re.compile(r"results/(?P<dataset>[^/]+)/(?P<model>[^/]+)/(?P<method>[^/]+)/seed(?P<seed>\d+)/[^/]+")
"""A file that a cell left."""


class Current:
    """The results that are there, as `config` sees them; each is looked at once, so take a new one to look again."""

    def __init__(self, config: Config) -> None:
        self._config, self._now = config, Present()
        self._results: dict[str, dict[str, Any]] = {}
        self._objections: dict[str, str | None] = {}

    def result(self, cell: grid.Cell) -> dict[str, Any]:
        """What lies in a cell's metrics.json, whatever it was made of; empty if there is none or it is damaged."""
        folder = grid.folder(cell)
        if folder not in self._results:
            self._results[folder] = read_json(Path(folder) / "metrics.json")
        return self._results[folder]

    def objection(self, cell: grid.Cell) -> str | None:
        """Why a cell has to be trained, as one sentence; None if it is done and everything is as it is asked for."""
        folder = grid.folder(cell)
        if folder not in self._objections:
            self._objections[folder] = self._look(cell)
        return self._objections[folder]

    def _look(self, cell: grid.Cell) -> str | None:
        for output in map(Path, grid.outputs(cell)):
            if not output.exists():
                return f"{output} is missing"
        path, metrics = f"{grid.folder(cell)}/metrics.json", self.result(cell)
        if not metrics or metrics.get("checksum") != checksum(metrics):
            return f"{path} is damaged or was changed after it had been written"
        if metrics.get("status") != "done":
            return f"{path} says that the cell failed"
        if why := objection(cell, metrics, self._now):
            return f"{path} {why}"
        for name in section(metrics, "inputs"):
            if place := IN_A_CELL.fullmatch(name):
                try:
                    other = self.objection(grid.cell(self._config, **place.groupdict()))
                except ConfigError as error:
                    other = str(error)
                if other:
                    return f"{path} was made from {name}, which has to be made again: {other}"
        return None
