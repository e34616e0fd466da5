"""Kinds of tasks: what loss, numbers and a good result mean. One file each, read without torch by planner and tables.

`harness/kinds/<name>.py` holds one object `KIND`; a kind exists when its file is there.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DEFAULT = "classification"
"""The kind of a dataset or a result that names none."""


class KindError(ValueError):
    """A kind of task that nobody has written; the message is one sentence."""


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Attributes:
        name: Its key in metrics.json, and its column.
        words: How sentences and axes call it.
        higher_is_better: Its direction.
        unit: "%" for a fraction that is shown in percent, "" for a number shown as it is.
        digits: Shown after the point.
        low: What it cannot fall below.
        high: What it cannot pass.
        least_span: What an axis shows of it at least, in the shown unit, so that noise does not look like a gap.
    """

    name: str
    words: str
    higher_is_better: bool = False
    unit: str = ""
    digits: int = 4
    low: float | None = None
    high: float | None = None
    least_span: float = 0.0

    @property
    def heading(self) -> str:
        """Of a column of a table."""
        return f"{self.words[0].upper()}{self.words[1:]} {self.unit}".rstrip()

    @property
    def axis(self) -> str:
        """Of a figure."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @property
    def scale(self) -> int:
        """What a value is multiplied with to be shown."""
        return 100 if self.unit == "%" else 1

    def beats(self, value: float, chance: float) -> bool:
        """Whether a value is clearly better than what an answer without a look at x reaches: a tenth of the way to the
        best value there is, 1 or 0."""
        left, there = (1 - value, 1 - chance) if self.higher_is_better else (value, chance)
        return left <= 0.9 * there

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1."""
        return 1 if self.higher_is_better else -1


class Carry:
    """What a network remembers from one batch to the next: nothing, unless a kind says otherwise."""

    def reset(self) -> None:
        """Forget everything: what comes next follows on nothing."""

    def advance(self) -> None:
        """Go on to the next batch."""

    def attached(self) -> AbstractContextManager[None]:
        """Have the network's passes use it meanwhile."""
        return nullcontext()

    def state_dict(self) -> Mapping[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""


class Kind(ABC):
    """What the rest of the suite must not know about a task.

    Attributes:
        name: As in metrics.json.
        metrics: What an evaluation reports, in the order of the tables' columns.
        main: The metric by which methods are compared.
        details: Further keys of an evaluation, which tables do not show.
        noun: What an example is, as in "images of 1 x 8 x 8".
        caption: What must be said of the metrics below a table.
        sources: Which sources of data are of the kind; those that no kind names are of the default one.
        calibration: Metrics of `predicted` beyond `metrics`: whether the predictions are as sure as they are right.
        sampled: Whether predictions by sampling can be evaluated: `pooled` and `predicted` are there.
    """

    name: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    main: ClassVar[Metric]
    details: ClassVar[tuple[str, ...]] = ()
    noun: ClassVar[str]
    caption: ClassVar[str] = ""
    sources: ClassVar[tuple[str, ...]] = ()
    calibration: ClassVar[tuple[Metric, ...]] = ()
    sampled: ClassVar[bool] = False

    def at_scale(self, scale: float) -> Kind:
        """The kind for targets that were divided by `scale`; without a unit of their own it is the same."""
        return self

    @abstractmethod
    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch: what training lowers."""

    @abstractmethod
    def sums(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        """What an evaluation adds up over its batches."""

    @abstractmethod
    def summary(self, means: Mapping[str, float], val: Mapping[str, float] | None = None) -> dict[str, float]:
        """The metrics of an evaluation.

        Args:
            means: `sums` over all batches, divided by the number of examples.
            val: The evaluation of the validation set, for what may be chosen there; None for itself.
        """

    @abstractmethod
    def chance(self, train: Tensor, test: Tensor) -> float:
        """The main metric of the best answer that does not look at x: learnt from the targets of `train`."""

    def example(self, input_shape: Iterable[int], batch: int = 1, device: torch.device | str = "cpu") -> Tensor:
        """A blank input, to trace networks with and to count and time them: (batch, *input_shape)."""
        import torch

        return torch.zeros(batch, *input_shape, device=device)

    def output_shape(self, input_shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        """Shape of what a network gives for one example."""
        return (outputs,)

    def examples_in(self, input_shape: tuple[int, ...]) -> int:
        """How many examples, in the sense of `sums`, one input of this shape holds."""
        return 1

    def pooled(self, outputs: Tensor) -> Tensor:
        """What `predicted` needs of several passes, (samples, batch, ...): (batch, ...)."""
        raise NotImplementedError

    def predicted(
        self, pooled: Tensor, y: Tensor, val: Callable[[], tuple[Tensor, Tensor]] | None = None
    ) -> dict[str, float]:
        """The metrics, `calibration` among them, of predictions that average passes.

        Args:
            pooled: Of all examples.
            y: Their targets.
            val: Gives the same of the validation set, for what may be chosen there; None for itself.
        """
        raise NotImplementedError

    def reliability(self, pooled: Tensor, y: Tensor) -> list[list[float]]:
        """Of each bin of the confidence that has examples: their share, mean confidence, and share of right answers;
        nothing for predictions without a confidence."""
        return []

    def carry(self, network: nn.Module) -> Carry:
        """What is carried between the batches of an epoch or of an evaluation."""
        return Carry()

    def objections(self, evaluation: Mapping[str, float]) -> Iterator[str]:
        """A clause, that starts with the key, for whatever contradicts itself in an evaluation."""
        return iter(())


def named(name: str) -> Kind:
    """The kind of that name.

    Raises:
        KindError: there is none.
    """
    if name not in names():
        raise KindError(f"there is no kind of task '{name}': the kinds are {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}").KIND


def of_data(section: Mapping[str, Any]) -> str:
    """The kind of a dataset, by its section of config.yaml."""
    return next((name for name in names() if section["source"] in named(name).sources), DEFAULT)


def names() -> list[str]:
    """All kinds: the default first, the others in alphabetical order."""
    found = {module.name for module in pkgutil.iter_modules(__path__)}
    return [DEFAULT, *sorted(found - {DEFAULT})]


def bounds(kind: Kind, evaluation: Mapping[str, float]) -> Iterator[str]:
    """A clause, that starts with the key, for each entry that the kind does not know, lacks, or that cannot be."""
    metrics = {metric.name: metric for metric in (*kind.metrics, *kind.calibration)}
    for key in sorted(set(evaluation) - {*metrics, *kind.details, "examples"}):
        yield f"{key}: is no number of the kind '{kind.name}'"
    for key in ("loss", kind.main.name):
        if key not in evaluation:
            yield f"{key}: is missing in an evaluation of the kind '{kind.name}'"
    for key, metric in metrics.items():
        value = evaluation.get(key)
        if value is not None and metric.low is not None and value < metric.low:
            yield f"{key}: {value} is less than the minimum of {metric.low:g}"
        if value is not None and metric.high is not None and value > metric.high:
            yield f"{key}: {value} is greater than the maximum of {metric.high:g}"
