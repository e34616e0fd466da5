"""Matrices of which a few entries are known: drawn from a law that is given, or the ratings of MovieLens-100k."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy
import torch
from torch import Tensor

from harness.data.prepared import DataError
from harness.sources.download import Archive, check, fetch
from theory.experiment import Data

ARCHIVE = Archive(
    "ml-100k.zip",
    "0e33842e24a9c977be4e0107933c0723",
    ("https://files.grouplens.org/datasets/movielens/ml-100k.zip",),
)
RATINGS = Archive("u.data", "6e47046882bad158b0efbb84cd5cb987", ARCHIVE.urls)
"""The file in it that is read, and its checksum where the archive was unpacked by hand."""


@dataclass(frozen=True)
class Entries:
    """Known entries of a matrix: rows and columns (entries,) int64, and their values (entries,) float32."""

    rows: Tensor
    columns: Tensor
    values: Tensor

    def __getitem__(self, chosen: Tensor | slice) -> Entries:
        return Entries(self.rows[chosen], self.columns[chosen], self.values[chosen])

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Problem:
    """Entries to learn from and others to test on; the law of rows p (rows,) and that of columns q (columns,)."""

    train: Entries
    test: Entries
    p: Tensor
    q: Tensor


def synthetic(seed: int, *, rows: int = 200, columns: int = 150, rank: int = 5, share: float = 0.15) -> Problem:
    """Noisy draws from a matrix of low rank: rows and columns come by power laws, as many as `share` of the entries."""
    generator = torch.Generator().manual_seed(seed)

    def power_law(count: int) -> Tensor:
        weights = 1 / torch.arange(1.0, count + 1)
        return (weights / weights.sum())[torch.randperm(count, generator=generator)]

    def draw(count: int) -> Entries:
        i, j = (torch.multinomial(law, count, replacement=True, generator=generator) for law in (p, q))
        return Entries(i, j, matrix[i, j] + 0.3 * torch.randn(count, generator=generator))

    p, q = power_law(rows), power_law(columns)
    left, right = (torch.randn(count, rank, generator=generator) for count in (rows, columns))
    matrix = left @ right.T / rank**0.5
    return Problem(draw(round(share * rows * columns)), draw(20_000), p, q)


def movielens(data: Data, seed: int, *, share: float = 0.8) -> Problem:
    """Ratings of MovieLens-100k minus their mean, `share` of them to learn from.

    p and q are the shares of users and of films among those ratings.

    Raises:
        DataError: the ratings are not there, or are not what was published.
    """
    entries = read(data)
    rows, columns = (int(index.max()) + 1 for index in (entries.rows, entries.columns))
    entries = entries[torch.randperm(len(entries), generator=torch.Generator().manual_seed(seed))]
    count = round(share * len(entries))
    entries = replace(entries, values=entries.values - entries.values[:count].mean())
    train, test = entries[:count], entries[count:]
    p, q = torch.bincount(train.rows, minlength=rows) / count, torch.bincount(train.columns, minlength=columns) / count
    return Problem(train, test, p, q)


def read(data: Data) -> Entries:
    """The ratings (Harper & Konstan 2015) from `root`/ml-100k/u.data, or from the archive as it is published.

    Raises:
        DataError: neither is there, or one is not what was published.
    """
    path = data.root / "ml-100k" / RATINGS.filename
    if path.exists():
        check(RATINGS, path)
        return parse(path.read_bytes(), path=path)
    [archive] = fetch([ARCHIVE], data.root, download=data.download)
    with zipfile.ZipFile(archive) as packed:
        return parse(packed.read("ml-100k/u.data"), path=archive)


def parse(content: bytes, *, path: Path) -> Entries:
    """Ratings from lines of user, film, rating and time, separated by tabs; users and films count from 1.

    Raises:
        DataError: a line has something else.
    """
    try:
        table = numpy.array([line.split(b"\t") for line in content.splitlines()], dtype=numpy.int64)
        users, films, ratings, _ = torch.from_numpy(table.T)
    except ValueError as error:
        raise DataError(f"{path} has a line that is no rating ({error}): delete it and start again") from error
    return Entries(users - 1, films - 1, ratings.float())
