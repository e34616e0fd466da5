"""Sentences to classify: the polarity of lines of film reviews (Pang & Lee, ACL 2005, v1.0)."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from harness.data.prepared import DataError
from harness.sources.download import Archive, fetch
from harness.sources.table import TableSource

NOTHING, UNKNOWN = 0, 1
"""Numbers of what fills a short sentence up and of words that are not among those told apart."""
# The form of it that NLTK's data index offers, in UTF-8; the MD5 is that of the file itself.
POLARITY = Archive(
    "sentence_polarity.zip",
    "5cdc0cae7f558040d050c90eb2b72e97",
    ("https://raw.githubusercontent.com/nltk/nltk_data/gh-pages/packages/corpora/sentence_polarity.zip",),
)
CLASSES = {"negative": "neg", "positive": "pos"}


def read_polarity(root: Path, *, words: int | None, download: bool) -> TableSource:
    """The 5,331 negative and as many positive sentences, from `root`/text; which are for the test nobody published.

    Args:
        root: Of the raw data.
        words: How many numbers of words there are, NOTHING and UNKNOWN among them; as many as needed if None.
        download: Fetch the archive if it is missing.

    Returns:
        A table whose features are the numbers of a sentence's words, (sentences, longest) int64. Which words are the
        commonest is counted over all sentences, the test's among them, without their classes.

    Raises:
        DataError: the archive is missing, damaged or not the published one.
    """
    [path] = fetch([POLARITY], root / "text", download=download)
    try:
        with zipfile.ZipFile(path) as archive:
            texts = [archive.read(f"sentence_polarity/rt-polarity.{ending}").decode() for ending in CLASSES.values()]
    except (zipfile.BadZipFile, KeyError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): delete it and start again") from error
    parts = [[line.split() for line in text.splitlines() if line.strip()] for text in texts]
    labels = torch.tensor([number for number, part in enumerate(parts) for _ in part])
    return TableSource(
        x=numbered([sentence for part in parts for sentence in part], words),
        y=labels,
        class_names=list(CLASSES),
        checksums={f"text/{POLARITY.filename}": f"md5:{POLARITY.md5}"},
    )


def numbered(sentences: Iterable[list[str]], words: int | None) -> Tensor:
    """(sentences, longest) int64: the commoner a word, the lower its number, ties in order of appearance."""
    sentences = list(sentences)
    counts = Counter(word for sentence in sentences for word in sentence)
    known = [word for word, _ in counts.most_common(None if words is None else words - UNKNOWN - 1)]
    numbers = {word: number for number, word in enumerate(known, start=UNKNOWN + 1)}
    rows = torch.full((len(sentences), max(map(len, sentences))), NOTHING)
    for row, sentence in zip(rows, sentences, strict=True):
        row[: len(sentence)] = torch.tensor([numbers.get(word, UNKNOWN) for word in sentence])
    return rows
