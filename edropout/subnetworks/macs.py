"""Multiply-accumulates of the convolutions and linear layers that a plan leaves, for one example."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edropout.subnetworks.graph import Graph, Step
from edropout.subnetworks.layout import Plan
from edropout.subnetworks.tracing import CONVOLUTIONS


def mac_count(graph: Graph, modules: Mapping[str, nn.Module], plan: Plan) -> int:
    """Multiply-accumulates of one forward pass of one example; a layer counts as often as it is called.

    What is no convolution and no linear layer, such as the products of an attention, does not count.
    """
    return sum(_of_step(step, modules[step.target], graph, plan) for step in graph.steps if step.kind == "module")


def _of_step(step: Step, module: nn.Module, graph: Graph, plan: Plan) -> int:
    linear = isinstance(module, nn.Linear)
    if not (linear or isinstance(module, CONVOLUTIONS)) or step.name not in graph.shapes:
        return 0
    cut = plan.cuts.get(step.target)
    rows, columns, *kernel = module.weight.shape
    if cut is not None:
        rows = rows if cut.rows is None else len(cut.rows)
        columns = columns if cut.columns is None else cut.columns.shape[-1]
    shape = graph.shapes[step.name]
    places = shape[1:-1] if linear else shape[2:]
    return torch.Size([*places, rows, columns, *kernel]).numel()
