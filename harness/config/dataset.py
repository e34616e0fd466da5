"""`datasets` of config.yaml: a source, its preprocessing, and the recipe that it is trained with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from harness.config.key import CLOSED, NAMED, Architecture, Limits, Name, key


@dataclass(frozen=True)
class Dataset:
    """The same source with another recipe or subset is another dataset, with another folder under `results/`."""

    __pydantic_config__ = CLOSED

    source: Literal[
        "digits",
        "mnist",
        "kuzushiji",
        "fashion",
        "cifar10",
        "cifar100",
        "flowers",
        "imagenet",
        "imagefolder",
        "ptb",
        "wikitext2",
        "text",
        "grammar",
        "diabetes",
        "uci",
        "polarity",
    ] = key(
        "what is read: images to classify; texts (`text`: your own, `grammar`: one that is made) to predict word by "
        "word; tables with a number to predict; sentences to classify (`polarity`)"
    )
    recipe: Name = key("name of the recipe")
    path: str | None = key("folder below the data root, for `imagefolder` and `text`", default=None, min_length=1)
    image_size: int | None = key("side in pixels that images are resized to", default=None, ge=1)
    image_size_by_model: dict[Architecture, Annotated[int, Limits(ge=1)]] = key(
        "the same for single architectures (the paper: 224 for AlexNet and SqueezeNet)", default_factory=dict, **NAMED
    )
    train_examples: int | None = key(
        "size of a seeded, stratified subset to train with; of a text the number of words from its start",
        default=None,
        ge=1,
    )
    val_examples: int | None = key("the same for validation", default=None, ge=1)
    test_examples: int | None = key("the same for the test", default=None, ge=1)
    val_fraction: float = key(
        "share of training that validation is cut from; 0.1 in the paper", default=0.1, gt=0, lt=1
    )
    split_seed: int = key("seed of the splits and subsets", default=0, ge=0)
    set: str | None = key("which of the sets of `uci`", default=None, min_length=1)
    vocabulary: int | None = key(
        "words of a text, or of sentences, that are told apart, the commonest; all unless given", default=None, ge=3
    )
    num_classes: int | None = key(
        "how many classes there must be (`imagenet` demands 1000 unless this says otherwise)", default=None, ge=2
    )
    download: bool | None = key("fetch what is missing; as `data.download` unless given", default=None)
    split: Literal["authors", "official"] = key("for `flowers`", default="authors")
    outliers: Literal["mnist", "kuzushiji", "fashion", "cifar10", "cifar100"] | None = key(
        "another dataset, whose test images, of the same size, are to be told from this one's by the entropy of the "
        "predictions, where the recipe has `samples`",
        default=None,
    )
    normalize: Literal["none", "dataset", "imagenet"] | None = key(
        "channel statistics. By default as in the authors' code: `none` for grey images, `dataset` for CIFAR and your "
        "own, `imagenet` for Flowers and ImageNet; their README says `imagenet` for all but Kuzushiji and Fashion",
        default=None,
    )
