"""A text made by a small grammar, whose every word has a known probability: what the best model can reach is known.

Verbs agree with their subject also across a relative clause, so that a good model remembers more than the last word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy

from harness.data.prepared import END

SENTENCES = (4000, 500, 500)
"""Of the training, validation and test text: about 40,000, 5,000 and 5,000 tokens."""

DETERMINERS = (("a", "every", "this"), ("all", "some", "these"))
ADJECTIVES = ("small", "old", "quiet", "green", "clever", "tired", "young", "strange")
NOUNS = ("dog", "bird", "child", "farmer", "painter", "river", "wolf", "sailor", "tree", "doctor", "king", "fox")
VERBS = ("see", "follow", "like", "hear", "remember", "paint", "fear", "help", "know", "watch")
ADVERBS = ("often", "never", "today", "gladly", "again")
ADJECTIVE, CLAUSE, ADVERB = 0.4, 0.3, 0.3
"""Probabilities of the parts that a sentence may lack."""


def write(sentences: int, *, seed: int) -> tuple[list[str], float]:
    """Sentences, each ended by END, and the natural logarithm of their probability under the grammar.

    No sentence can be made in two ways, so no model gives the text a higher probability in the mean: the perplexity of
    the grammar is exp(-log probability / number of words).
    """
    writer = _Writer(seed)
    for _ in range(sentences):
        writer.sentence()
    return writer.words, writer.log_probability


class _Writer:
    def __init__(self, seed: int) -> None:
        # The legacy generator's stream is frozen by NumPy's policy.
        self.random = numpy.random.RandomState(seed)
        self.words: list[str] = []
        self.log_probability = 0.0

    def sentence(self) -> None:
        plural = self.noun_phrase()
        if self.maybe(CLAUSE):
            self.words.append("that")
            self.verb(plural)
            self.noun_phrase()
        self.verb(plural)
        self.noun_phrase()
        if self.maybe(ADVERB):
            self.words.append(self.one_of(ADVERBS))
        self.words.append(END)

    def noun_phrase(self) -> bool:
        """Writes one; True for a plural."""
        plural = self.maybe(0.5)
        self.words.append(self.one_of(DETERMINERS[plural]))
        if self.maybe(ADJECTIVE):
            self.words.append(self.one_of(ADJECTIVES))
        self.words.append(self.one_of(NOUNS) + "s" * plural)
        return plural

    def verb(self, plural: bool) -> None:
        self.words.append(self.one_of(VERBS) + "s" * (not plural))

    def maybe(self, probability: float) -> bool:
        happens = bool(self.random.random_sample() < probability)
        self.log_probability += math.log(probability if happens else 1 - probability)
        return happens

    def one_of(self, words: Sequence[str]) -> str:
        """A word; the n-th is n times rarer than the first, as in texts."""
        weights = 1 / numpy.arange(1, len(words) + 1)
        shares = weights / weights.sum()
        number = int(numpy.searchsorted(shares.cumsum(), self.random.random_sample()))
        number = min(number, len(words) - 1)
        self.log_probability += math.log(shares[number])
        return words[number]
