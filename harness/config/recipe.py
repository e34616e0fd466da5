"""`recipes` of config.yaml: how every method of a dataset is trained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from harness.config.key import CLOSED, Decay, key

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class Adadelta:
    """`torch.optim.Adadelta`; the defaults of all options are torch's."""

    __pydantic_config__ = CLOSED

    name: Literal["adadelta"]
    lr: float = key("learning rate of the first epoch", gt=0)
    rho: float = key("how much of the running averages each step keeps", default=0.9, ge=0, le=1)
    eps: float = key("added under the root", default=1e-6, gt=0)
    weight_decay: float = key("L2 penalty, halved", default=0.0, ge=0)


@dataclass(frozen=True)
class SGD:
    """`torch.optim.SGD`."""

    __pydantic_config__ = CLOSED

    name: Literal["sgd"]
    lr: float = key("learning rate of the first epoch", gt=0)
    momentum: float = key("share of the last step that goes on", default=0.0, ge=0, le=1)
    nesterov: bool = key("look ahead (Nesterov); needs momentum", default=False)
    weight_decay: float = key("L2 penalty, halved", default=0.0, ge=0)

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise ValueError("'nesterov' needs a 'momentum' above 0")


@dataclass(frozen=True)
class Adam:
    """`torch.optim.Adam`."""

    __pydantic_config__ = CLOSED

    name: Literal["adam"]
    lr: float = key("learning rate of the first epoch", gt=0)
    betas: tuple[Decay, Decay] = key("how much of both running averages each step keeps", default=(0.9, 0.999))
    eps: float = key("added to the root", default=1e-8, gt=0)
    weight_decay: float = key("L2 penalty, halved", default=0.0, ge=0)


@dataclass(frozen=True)
class AdamW:
    """`torch.optim.AdamW`."""

    __pydantic_config__ = CLOSED

    name: Literal["adamw"]
    lr: float = key("learning rate of the first epoch", gt=0)
    betas: tuple[Decay, Decay] = key("how much of both running averages each step keeps", default=(0.9, 0.999))
    eps: float = key("added to the root", default=1e-8, gt=0)
    weight_decay: float = key("share of the weights that each step takes away, times the rate", default=0.01, ge=0)


OPTIMIZERS = {"adadelta": Adadelta, "sgd": SGD, "adam": Adam, "adamw": AdamW}


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the epochs. A method that starts from the dense network goes on where it stands."""

    __pydantic_config__ = CLOSED

    name: Literal["step", "cosine", "linear"] = key(
        "`step`: `lr * gamma ** (epoch // step_epochs)`; `cosine` and `linear`: to zero over `epochs`", default="step"
    )
    hold_epochs: int = key("epochs at the first rate before all this begins", default=0, ge=0)
    step_epochs: int | None = key("epochs between two falls, all unless given; 50 in the paper", default=None, ge=1)
    gamma: float = key("factor of each fall; 0.1 in the paper", default=0.1, gt=0, le=1)

    def __post_init__(self) -> None:
        if self.name != "step" and (self.step_epochs, self.gamma) != (None, 0.1):
            raise ValueError(f"a {self.name} takes neither 'step_epochs' nor 'gamma'")


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images, drawn for each example, in this order.

    `area` is Szegedy et al. 2015 (arXiv:1409.4842), `cutout` DeVries & Taylor 2017 (arXiv:1708.04552), whose square may
    reach over the border. A turn is counter-clockwise about the centre, nearest pixel, black outside.
    """

    __pydantic_config__ = CLOSED

    area: float = key(
        "smallest share of an image file's area that a random rectangle keeps; 0.08 is usual on ImageNet",
        default=1.0,
        gt=0,
        le=1,
    )
    crop: int = key("black pixels added on every side before an image of the old size is cut out", default=0, ge=0)
    flip: bool = key("mirror half of the images", default=False)
    rotation: float = key("largest angle of a turn in degrees", default=0.0, ge=0, le=180)
    cutout: int = key("side in pixels of a square that becomes zero after normalisation", default=0, ge=0)


@dataclass(frozen=True)
class Recipe:
    """How every method of a dataset is trained."""

    __pydantic_config__ = CLOSED

    epochs: int = key("the whole budget of every method; 200 in the authors' README", ge=1)
    prune_epoch: int = key(
        "where pruning methods take over the dense network, and where EDropout freezes its best state at the latest; "
        "100 in the paper: the authors' threshold of early state convergence",
        ge=1,
    )
    batch_size: int = key("examples per step, or columns of a text; 128 in the authors' README", ge=1)
    optimizer: Adadelta | SGD | Adam | AdamW = key(
        "`name`, `lr` and options; the authors' README has Adadelta, lr 1, rho 0.9, eps 1e-6, weight decay 1e-5",
        discriminator="name",
    )
    schedule: Schedule = key("the learning rate over the epochs")
    augment: Augmentation = key("what is done to training images", default_factory=Augmentation)
    unroll: int = key("words of a text that a batch reads on in each row, and the gradient goes back", default=35, ge=1)
    clip: float | None = key(
        "largest norm of the gradient of all that the optimiser updates, which is scaled down to it; 5 for the small "
        "LSTM of Zaremba et al. (arXiv:1409.2329)",
        default=None,
        gt=0,
    )
    precision: Literal["float32", "bfloat16"] = key("`bfloat16` is autocast", default="float32")
    compile: bool = key(
        "torch.compile for methods that train with the plain cross-entropy of the network; needs a C++ compiler. It "
        "moves the last bits, like `precision`, and pays only in long runs: the first batch waits for the compiler",
        default=False,
    )
    threads: int = key(
        "CPU threads of one job, and threads that decode images; fixed here because it may move the last bits",
        default=1,
        ge=1,
    )
    processes: int = key(
        "processes that train one cell together, each with its share of every batch and, on GPUs, a GPU of its own. "
        "Here because batch norm then sees the shares: [docs/cluster.md](../docs/cluster.md)",
        default=1,
        ge=1,
    )
    eval_batch_size: int = key("examples per evaluation step", default=500, ge=1)
    samples: int = key(
        "passes that draw, over which the predictions of methods that can sample are averaged for rows of their own; "
        "of images the calibration of every method is then measured too. None unless given",
        default=0,
        ge=0,
    )

    def __post_init__(self) -> None:
        if self.schedule.hold_epochs >= self.epochs:
            raise ValueError("'schedule.hold_epochs' must be less than 'epochs'")

    @classmethod
    def of(cls, **section: Any) -> Recipe:
        """A recipe from its section of config.yaml, which was checked where the cell was planned."""
        optimizer: Mapping[str, Any] = section["optimizer"]
        if "betas" in optimizer:
            optimizer = {**optimizer, "betas": tuple(optimizer["betas"])}
        parts = {
            "optimizer": OPTIMIZERS[optimizer["name"]](**optimizer),
            "schedule": Schedule(**section["schedule"]),
            "augment": Augmentation(**section.get("augment", {})),
        }
        return cls(**{**section, **parts})

    def learning_rate(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 0 over the whole budget."""
        schedule, base = self.schedule, self.optimizer.lr
        passed, whole = max(0, epoch - schedule.hold_epochs), self.epochs - schedule.hold_epochs
        if schedule.name == "cosine":
            return base * 0.5 * (1 + math.cos(math.pi * passed / whole))
        if schedule.name == "linear":
            return base * (1 - passed / whole)
        return base * schedule.gamma ** (passed // (schedule.step_epochs or self.epochs))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The recipe's optimiser over `parameters`."""
        import torch

        options = asdict(self.optimizer)
        del options["name"]
        return getattr(torch.optim, type(self.optimizer).__name__)(parameters, **options)
