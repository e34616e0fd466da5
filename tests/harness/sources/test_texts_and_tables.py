"""Readers of texts and tables: small files in their true formats, in every packing, and what is wrong said."""

import gzip
import hashlib
import math
import zipfile
from types import SimpleNamespace

import pytest
import torch

from harness.data import dataset
from harness.data.prepared import END, DataError, read
from harness.sources import grammar, sentences, table, text
from harness.sources.download import Archive
from harness.sources.prepare import prepare

LINES = {"train": b" the cat sat \n the cat <unk> \n", "val": b" the dog sat \n", "test": b" cat \n"}
RECIPE = SimpleNamespace(batch_size=2, eval_batch_size=4, augment=None, threads=1, processes=1, unroll=3)


def md5(content):
    return hashlib.md5(content).hexdigest()


def load(path, recipe=RECIPE, **options):
    return dataset.load(path, recipe=recipe, device="cpu", seed=1, **options)


@pytest.fixture
def penn(tmp_path, monkeypatch):
    """Small files whose MD5s are those that are published."""
    (tmp_path / "ptb").mkdir()
    names = {"train": "ptb.train.txt", "val": "ptb.valid.txt", "test": "ptb.test.txt"}
    for split, name in names.items():
        (tmp_path / "ptb" / name).write_bytes(LINES[split])
    archives = {
        split: Archive(name, md5(LINES[split]), ("https://nowhere.example/x",)) for split, name in names.items()
    }
    monkeypatch.setattr(text, "PENN_ARCHIVES", archives)
    return tmp_path


def test_penn_treebank_becomes_numbers_with_an_end_after_every_line(penn):
    prepare("words", {"source": "ptb", "recipe": "r"}, root=penn, out=penn / "out")
    stored = read(penn / "out")
    words = stored.description.class_names
    assert words[0] == END and set(words) == {END, "the", "cat", "sat", "<unk>"}
    train = [words[number] for number in stored.tensors["train_tokens"].tolist()]
    assert train == ["the", "cat", "sat", END, "the", "cat", "<unk>", END]
    assert [words[number] for number in stored.tensors["val_tokens"].tolist()] == ["the", "<unk>", "sat", END]
    data = load(penn / "out")
    assert (data.kind.name, data.num_classes, data.input_shape) == ("language", 5, (3,))
    assert data.train.columns == data.val.columns == 2 and data.test.columns == 1 and len(data.train) == 2
    assert next(iter(data.test))[0][0, 0] == words.index(END)


def test_gzipped_files_serve_as_well_and_damaged_ones_are_named(penn):
    plain = penn / "ptb" / "ptb.train.txt"
    packed = penn / "ptb" / "ptb.train.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    assert text.read_penn(penn, download=False).words["train"][:2] == ["the", "cat"]
    packed.write_bytes(gzip.compress(b"other\n"))
    with pytest.raises(DataError, match=r"ptb.train.txt.gz holds another text than the published one"):
        text.read_penn(penn, download=False)
    packed.write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"ptb.train.txt.gz is truncated or damaged"):
        text.read_penn(penn, download=False)
    packed.unlink()
    with pytest.raises(DataError, match=r"put them into .*ptb: ptb.train.txt"):
        text.read_penn(penn, download=False)
    plain.write_bytes(b"changed\n")
    with pytest.raises(DataError, match=r"ptb.train.txt is not the published file"):
        text.read_penn(penn, download=False)


def test_wikitext_is_read_from_its_archive_or_from_plain_files(tmp_path, monkeypatch):
    folder = tmp_path / "wikitext-2"
    folder.mkdir()
    with zipfile.ZipFile(folder / "wikitext-2-v1.zip", "w") as archive:
        for split, name in {"train": "train", "val": "valid", "test": "test"}.items():
            archive.writestr(f"wikitext-2/wiki.{name}.tokens", LINES[split])
    content = (folder / "wikitext-2-v1.zip").read_bytes()
    monkeypatch.setattr(text, "WIKITEXT", Archive("wikitext-2-v1.zip", md5(content), ("https://nowhere.example/x",)))
    monkeypatch.setattr(text, "WIKITEXT_MD5", {split: md5(lines) for split, lines in LINES.items()})
    packed = text.read_wikitext(tmp_path, download=False).words
    (folder / "wikitext-2-v1.zip").unlink()
    for split, name in text.FILES.items():
        (folder / name).write_bytes(LINES[split])
    assert text.read_wikitext(tmp_path, download=False).words == packed


def test_a_text_of_ones_own_with_fewer_words_and_tokens(tmp_path):
    for name, lines in zip(text.FILES.values(), (b"a a a b b c d", b"a e\n", b"b\nb\n"), strict=True):
        (tmp_path / name).write_bytes(lines)
    section = {"source": "text", "path": ".", "recipe": "r", "vocabulary": 4, "train_examples": 7}
    prepare("mine", section, root=tmp_path, out=tmp_path / "out")
    stored = read(tmp_path / "out")
    assert stored.description.class_names == ["a", "b", END, "<unk>"]
    assert stored.tensors["train_tokens"].tolist() == [0, 0, 0, 1, 1, 3, 3]
    with pytest.raises(DataError, match=r"datasets.mine.test_examples' asks for 5 tokens and there are 4"):
        prepare("mine", {**section, "test_examples": 5}, root=tmp_path, out=tmp_path / "out")
    (tmp_path / "test.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"test.txt is not UTF-8"):
        prepare("mine", section, root=tmp_path, out=tmp_path / "out")
    (tmp_path / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt is missing: a text has the files train.txt, valid.txt, test.txt"):
        prepare("mine", section, root=tmp_path, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"datasets.mine.path' is missing"):
        prepare("mine", {"source": "text", "recipe": "r"}, root=tmp_path, out=tmp_path / "out")


def test_a_running_text_has_one_process_and_enough_words(penn):
    prepare("words", {"source": "ptb", "recipe": "r"}, root=penn, out=penn / "out")
    with pytest.raises(DataError, match="recipe key 'processes' must be 1 for a running text"):
        load(penn / "out", SimpleNamespace(**{**vars(RECIPE), "processes": 2}))
    with pytest.raises(DataError, match="has 4 tokens in 'val': lower recipe key 'batch_size'"):
        load(penn / "out", SimpleNamespace(**{**vars(RECIPE), "batch_size": 5}))


def test_the_grammar_knows_the_probability_of_its_text():
    words, log_probability = grammar.write(400, seed=3)
    assert (words, log_probability) == grammar.write(400, seed=3) and words != grammar.write(400, seed=4)[0]
    assert words.count(END) == 400 and len(set(words)) <= 65
    # No model of single words is as good: with the text's own frequencies their entropy is more than the grammar's.
    counts = torch.tensor([float(words.count(word)) for word in set(words)])
    shares = counts / counts.sum()
    assert math.exp(-log_probability / len(words)) < 0.3 * math.exp(-(shares * shares.log()).sum())
    # Every verb agrees with the first noun of its sentence, however far away.
    plurals, singulars = {f"{noun}s" for noun in grammar.NOUNS}, set(grammar.NOUNS)
    for sentence in " ".join(words).split(END)[:-1]:
        found = sentence.split()
        subject = next(word for word in found if word in plurals | singulars)
        verbs = [word for word in found if word.removesuffix("s") in grammar.VERBS]
        assert verbs and all((verb in grammar.VERBS) == (subject in plurals) for verb in verbs)


def test_diabetes_has_a_split_of_its_own(tmp_path):
    prepare("sugar", {"source": "diabetes", "recipe": "r"}, root=tmp_path, out=tmp_path / "out")
    data = load(tmp_path / "out", split=3)
    assert [loader.num_examples for loader in (data.train, data.val, data.test)] == [310, 44, 88]
    assert (data.kind.name, data.num_classes, data.input_shape) == ("regression", 1, (10,))
    assert data.kind.scale == pytest.approx(77, abs=3) and data.chance() == pytest.approx(77, abs=5)
    x, y = next(data.train.epoch(0))
    assert x.shape == (2, 10) and y.shape == (2, 1) and x.dtype == y.dtype == torch.float32


@pytest.fixture
def uci(tmp_path, monkeypatch):
    """A set of 12 rows in the published format, with two splits."""
    folder = tmp_path / "UCI_Datasets" / "small" / "data"
    folder.mkdir(parents=True)
    files = {"data.txt": "".join(f"{row} {row % 3}.5e+00 {10 * row}\n" for row in range(12))}
    files |= {"index_features.txt": "0\n1\n", "index_target.txt": "2\n", "n_splits.txt": "2\n"}
    files |= {"index_train_0.txt": "".join(f"{row}.000e+00\n" for row in range(10)), "index_test_0.txt": "10\n11\n"}
    files |= {"index_train_1.txt": "".join(f"{row}\n" for row in range(2, 12)), "index_test_1.txt": "0\n1\n"}
    for name, content in files.items():
        (folder / name).write_text(content)
    sums = "".join(f"{md5(content.encode())}  small/data/{name}\n" for name, content in files.items())
    (tmp_path / "uci.md5").write_text(sums)
    monkeypatch.setattr(table, "UCI_MD5", tmp_path / "uci.md5")
    return tmp_path


def test_the_seed_chooses_among_the_published_splits(uci):
    section = {"source": "uci", "set": "small", "recipe": "r", "val_fraction": 0.2}
    prepare("small", section, root=uci, out=uci / "out")
    for seed, test in ((0, [100.0, 110.0]), (1, [0.0, 10.0]), (3, [0.0, 10.0])):
        data = load(uci / "out", split=seed)
        train = read(uci / "out").tensors["parts"][seed % 2] == 0
        mean = read(uci / "out").tensors["y"][train].mean()
        assert (data.test.targets.double() * data.kind.scale + mean).flatten().tolist() == pytest.approx(test, abs=1e-3)
        assert [loader.num_examples for loader in (data.train, data.val, data.test)] == [8, 2, 2]


def test_what_is_wrong_with_a_uci_set_is_said(uci):
    with pytest.raises(DataError, match="there is no UCI set 'large': the sets are small"):
        table.read_uci("large", uci, download=False)
    (uci / "UCI_Datasets" / "small" / "data" / "index_test_1.txt").write_text("0\n")
    with pytest.raises(DataError, match=r"index_test_1.txt is not the published file"):
        table.read_uci("small", uci, download=False)
    with pytest.raises(DataError, match=r"datasets.small.set' is missing: name one of the UCI sets"):
        prepare("small", {"source": "uci", "recipe": "r"}, root=uci, out=uci / "out")


def test_all_nine_published_sets_are_known():
    names = {line.split()[1].split("/")[0] for line in table.UCI_MD5.read_text().splitlines()}
    assert len(names) == 9 and "protein-tertiary-structure" in names


@pytest.fixture
def polarity(tmp_path, monkeypatch):
    """Twenty short sentences in the form of the published archive, whose MD5 is its own."""
    path = tmp_path / "text" / "sentence_polarity.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("sentence_polarity/rt-polarity.neg", "a dull film .\n" * 10)
        archive.writestr("sentence_polarity/rt-polarity.pos", "a caf\u00e9 of a film\n" * 9 + "rare\n\n")
    published = Archive(path.name, md5(path.read_bytes()), ("https://nowhere.example/x",))
    monkeypatch.setattr(sentences, "POLARITY", published)
    return tmp_path


def test_sentences_become_numbers_of_words_the_commonest_first(polarity):
    found = sentences.read_polarity(polarity, words=4, download=False)
    assert found.class_names == ["negative", "positive"] and found.y.tolist() == [0] * 10 + [1] * 10
    unknown, nothing, a, film = sentences.UNKNOWN, sentences.NOTHING, 2, 3
    assert found.x[0].tolist() == [a, unknown, film, unknown, nothing]
    assert found.x[10].tolist() == [a, unknown, unknown, a, film] and found.x[19].tolist() == [unknown] + 4 * [nothing]
    everything = sentences.read_polarity(polarity, words=None, download=False)
    assert everything.x.max() == 8 and sentences.UNKNOWN not in everything.x


def test_sentences_are_a_classification_whose_words_are_not_standardised(polarity):
    prepare("lines", {"source": "polarity", "recipe": "r", "vocabulary": 5}, root=polarity, out=polarity / "out")
    data = load(polarity / "out")
    assert (data.kind.name, data.num_classes, data.input_shape) == ("classification", 2, (5,))
    x, y = next(iter(data.train.epoch(0)))
    assert x.dtype == y.dtype == torch.int64 and x.min() >= 0 and x.max() <= 4
    assert [part.num_examples for part in (data.train, data.val, data.test)] == [14, 2, 4]


def test_a_damaged_archive_of_sentences_is_named(polarity, monkeypatch):
    path = polarity / "text" / "sentence_polarity.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="is not the published file"):
        sentences.read_polarity(polarity, words=None, download=False)
    monkeypatch.setattr(sentences, "POLARITY", Archive(path.name, md5(b"no zip"), ()))
    with pytest.raises(DataError, match="is truncated or damaged"):
        sentences.read_polarity(polarity, words=None, download=False)
