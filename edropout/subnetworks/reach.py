"""Which steps of a graph mix channels, and which lie before the first and behind the last of them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from edropout.subnetworks.graph import Graph


def steps_with_weights(graph: Graph, modules: Mapping[str, nn.Module], model: nn.Module) -> set[str]:
    """Names of the steps that mix channels; norms and activations scale each on its own."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    matrices: set[str] = set()  # values that are computed from the weights alone
    found = set()
    for step in graph.steps:
        if step.kind == "attribute":
            if step.target in parameters and parameters[step.target].ndim > 1:
                matrices.add(step.name)
        elif step.kind == "module":
            if any(parameter.ndim > 1 for parameter in modules[step.target].parameters()):
                found.add(step.name)
        elif step.reads and matrices.issuperset(step.reads):
            matrices.add(step.name)
        elif not matrices.isdisjoint(step.reads):
            found.add(step.name)
    return found


def reaching_output(graph: Graph, with_weights: set[str]) -> set[str]:
    """Names of the steps from which the network's output comes without another layer with weights in between."""
    found: set[str] = set()
    for step in reversed(graph.steps):
        through = step.name in found and step.name not in with_weights and step.target not in ("size", "dim", getattr)
        if step.kind == "output" or through:
            found.update(step.reads)
    return found


def reached_by_input(graph: Graph, with_weights: set[str]) -> set[str]:
    """Names of the steps that only read what comes from the network's input without a layer with weights before."""
    found: set[str] = set()
    for step in graph.steps:
        if all(name in found and name not in with_weights for name in step.reads):
            found.add(step.name)
    return found
