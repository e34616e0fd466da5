"""Today's structured pruners, by Torch-Pruning, on one path: a dense start, a gradual descent, fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from baselines.depgraph import library, widths
from harness.measure import metrics
from harness.pruning.inherited import kept_ratio_of, macs_ratio_of
from harness.pruning.structured import check_ratio
from harness.training.task import Task

GROWTH_EVERY = 10
"""Steps between two increments of the growing penalty."""


def fit(
    model: nn.Module,
    task: Task,
    *,
    target_kept: Annotated[float, "(0, 1]"] | None = None,
    by: Literal["parameters", "macs"] = "parameters",
    importance: Literal["group_norm", "l1", "norm_scale", "taylor", "fpgm", "lamp", "obd", "random"] = "group_norm",
    regularise: Literal["group", "norm_scale", "growing", "none"] = "group",
    global_pruning: bool = True,
    stages: Annotated[int, "[1, inf)"] = 20,
    warm_up: Annotated[float, "[0, 1)"] = 0.1,
    until: Annotated[float, "[0, 1)"] = 0.35,
) -> nn.Module:
    """Train `model` from scratch, remove groups of coupled channels on the way, and fine-tune.

    With the defaults DepGraph (Fang et al., CVPR 2023, arXiv:2301.12900): the group l2 norm as the order, its group
    penalty until the last removal. Published recipes that prune once are `stages=1` with `warm_up` and `until` at the
    same share: a sparse training, one removal, fine-tuning.

    Args:
        model: A freshly initialised network.
        task: Data, recipe and loop.
        target_kept: Share of the dense network that is left, in (0, 1]. None is that of the EDropout cell of the same
            dataset, model and seed.
        by: What it is a share of, "parameters" or "macs".
        importance: Order in which groups go: "group_norm", "l1", "norm_scale" (network slimming), "taylor", "fpgm",
            "lamp", "obd" or "random".
        regularise: Penalty added to the gradients until the last removal: "group", "norm_scale", "growing" or "none";
            its strength is the library's default.
        global_pruning: Rank the groups of all layers together; otherwise each layer loses the same share.
        stages: Removals between `warm_up` and `until`; the share that is left falls with the cube of the time left.
        warm_up: Share of all steps that the dense network is trained.
        until: Share of all steps at the last removal.

    Returns:
        The smaller network.

    Raises:
        ValueError: a hyper-parameter that does not exist or lies outside its range; the library cannot follow the
            network.
    """
    _check(stages=stages, warm_up=warm_up, until=until, by=by, importance=importance, regularise=regularise)
    kept = _share(task, by) if target_kept is None else target_kept
    check_ratio(1 - kept, "1 - target_kept")
    total = task.epochs_left * len(task.train_loader)
    descent = Descent(
        model,
        task,
        moments=_moments(total, stages, warm_up, until),
        shares=[kept + (1 - kept) * (1 - (stage + 1) / stages) ** 3 for stage in range(stages)],
        by=by,
        order=importance,
        penalty=regularise,
        global_pruning=global_pruning,
    )
    handle = widths.resizes_when_loaded(model)
    task.train(
        model,
        loss=descent.loss,
        step=descent.step,
        state={"descent": descent},
        columns=lambda: {"kept_ratio": metrics.parameters(model) / descent.dense_parameters},
    )
    handle.remove()
    model.changed_by = {"method": "depgraph", "arguments": {"shapes": widths.shapes_of(model)}}
    return model


def change(dense: nn.Module, *, shapes: Mapping[str, list[int]]) -> nn.Module:
    """The stored network: the dense architecture with the widths that were left of it."""
    widths.resize_(dense, shapes)
    return dense


class Descent:
    """Where the network is on its path: takes part in every step of the training loop and in its checkpoints."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        *,
        moments: list[int],
        shares: list[float],
        by: str,
        order: str,
        penalty: str,
        global_pruning: bool,
    ) -> None:
        self.network, self.example, self.mean_loss = network, task.example(), task.loss
        self.moments, self.shares = moments, shares
        self.order, self.penalty, self.global_pruning = order, penalty, global_pruning
        self.dense_parameters = metrics.parameters(network)
        self.size = (
            metrics.parameters if by == "parameters" else lambda model: metrics.macs(model, task.input_shape, task.kind)
        )
        self.dense_size = self.size(network)
        self.taken = 0
        self.batch: tuple[Tensor, Tensor] | None = None
        self._pruner: Any = None
        self._growing: list[Tensor] | None = None

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean loss of a batch."""
        self.batch = x, y
        return self.mean_loss(self.network(x), y)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimiser, with the penalty before it and a removal where one is due."""
        if self.taken in self.moments:
            self._remove(optimizer)
        if self.penalty != "none" and self.taken < self.moments[-1]:
            self._regularise()
        optimizer.step()
        self.taken += 1

    def _remove(self, optimizer: torch.optim.Optimizer) -> None:
        share = self.shares[max(index for index, moment in enumerate(self.moments) if moment == self.taken)]
        judged = self.network
        if self.order == "obd":
            judged = copy.deepcopy(self.network)
            library.squared_gradients_(judged, *self.batch, self.mean_loss)
        options = {"order": self.order, "global_pruning": self.global_pruning}
        history = library.history_at(judged, self.example, share * self.dense_size, self.size, **options)
        widths.cut_(self.network, widths.left_of(self.network, history, self.example), optimizer)
        self._pruner = self._growing = None

    def _regularise(self) -> None:
        if self._pruner is None:
            order = "norm_scale" if self.penalty == "norm_scale" else "group_norm"
            self._pruner = library.make(self.network, self.example, order=order, penalty=self.penalty)
            if self._growing is not None:
                self._pruner.group_reg = dict(zip(self._pruner._groups, self._growing, strict=True))
        if self.penalty == "growing":
            if self.taken % GROWTH_EVERY == 0:
                self._pruner.update_reg()
            self._growing = [self._pruner.group_reg[group] for group in self._pruner._groups]
        self._pruner.regularize(self.network)

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "growing": self._growing}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.taken, self._growing, self._pruner = state["taken"], state["growing"], None


def _share(task: Task, by: str) -> float:
    if "edropout" not in task.inputs:
        raise ValueError("give target_kept, or list edropout=EDROPOUT in the method's rule")
    return (kept_ratio_of if by == "parameters" else macs_ratio_of)(task.inputs["edropout"])


def _moments(total: int, stages: int, warm_up: float, until: float) -> list[int]:
    """The step before which each removal takes place, the last one at `until`."""
    first, last = round(total * warm_up), round(total * until)
    if stages == 1:
        return [min(last, total - 1)]
    return [min(round(first + (last - first) * stage / (stages - 1)), total - 1) for stage in range(stages)]


def _check(*, stages: int, warm_up: float, until: float, **choices: str) -> None:
    known = {"by": ("parameters", "macs"), "importance": library.IMPORTANCES, "regularise": library.PENALTIES}
    for name, value in choices.items():
        if value not in known[name]:
            raise ValueError(f"{name} must be one of {', '.join(known[name])}, not {value!r}")
    if not 0 <= warm_up <= until < 1:
        raise ValueError(
            f"warm_up and until must be shares of the training in this order, not {warm_up!r} and {until!r}"
        )
    if not isinstance(stages, int) or stages < 1:
        raise ValueError(f"stages must be a whole number of at least 1, not {stages!r}")
