"""What each step of a graph does to the channels that flow through it: the knowledge that makes removal exact."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edropout.subnetworks.graph import Graph, Ref, Step
from edropout.subnetworks.tracing import CONVOLUTIONS

# A channel that is zero everywhere leaves these as zero, and no channel sees another one.
ZERO_KEEPING_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh,
    nn.Hardswish, nn.Softsign, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, nn.Identity,
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
)  # fmt: skip
EACH_ON_ITS_OWN = tuple(set(ZERO_KEEPING_MODULES) - {nn.Dropout1d, nn.Dropout2d, nn.Dropout3d})
# As above if as many axes follow that of the channels; with one axis less, the channels are pooled or padded.
SPATIAL_MODULES = {
    1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.ConstantPad1d),
    2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ConstantPad2d),
    3: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d, nn.ConstantPad3d),
}
ZERO_KEEPING_FUNCTIONS = (
    torch.relu, torch.relu_, F.relu, F.relu_, F.relu6, F.leaky_relu, F.elu, F.selu, F.celu, F.gelu, F.silu, F.mish,
    torch.tanh, F.tanh, F.hardswish, F.softsign, F.dropout, F.dropout2d,
)  # fmt: skip
EACH_ON_ITS_OWN_FUNCTIONS = tuple(set(ZERO_KEEPING_FUNCTIONS) - {F.dropout2d})
SPATIAL_FUNCTIONS = {
    1: (torch.adaptive_avg_pool1d,),
    2: (F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
}
ZERO_KEEPING_METHODS = ("relu", "relu_", "tanh", "contiguous", "clone", "float", "half", "double")
ADDITIONS = (operator.add, operator.iadd, torch.add)
MOVES = (torch.permute, torch.transpose, torch.movedim, "permute", "transpose", "movedim")
PRODUCTS = (operator.mul, operator.imul, torch.mul)

# Roles of the convolutions whose channels can be removed.
CONVOLUTION_ROLES = ("convolution", "depthwise", "grouped")


def is_convolution(module: nn.Module) -> bool:
    """True for a convolution with a weight of its own and PyTorch's own arithmetic."""
    return _is_own(module, CONVOLUTIONS) and "weight" in module._parameters


def is_linear(module: nn.Module) -> bool:
    """True for a linear layer with a weight of its own and PyTorch's own arithmetic."""
    return _is_own(module, (nn.Linear,)) and "weight" in module._parameters


def _is_own(module: nn.Module, kinds: tuple[type, ...]) -> bool:
    """True if the module is one of `kinds` and nothing has replaced what they compute."""
    if "forward" in vars(module):
        return False
    computes = ("forward", "_conv_forward")
    return any(
        isinstance(module, kind) and all(getattr(type(module), n, None) is getattr(kind, n, None) for n in computes)
        for kind in kinds
    )


def is_norm(module: nn.Module) -> bool:
    """True for a batch norm, also one that ends with a zero-keeping activation (as timm's do)."""
    return isinstance(module, _BatchNorm) and all(_is_activation(entry) for entry in list(module.modules())[1:])


def _is_activation(module: nn.Module) -> bool:
    """True for a zero-keeping module, also a library's own class around a zero-keeping function, as timm's GELU."""
    if isinstance(module, ZERO_KEEPING_MODULES):
        return True
    try:
        steps = [node for node in fx.Tracer().trace(module).nodes if node.op not in ("placeholder", "output")]
    except Exception:  # whatever its control flow raises
        return False
    return bool(steps) and all(step.target in ZERO_KEEPING_FUNCTIONS for step in steps)


def is_zero_keeping(module: nn.Module, shape: torch.Size) -> bool:
    """True if a zero channel of an input of this shape stays zero in `module` and channels do not mix."""
    if _is_own(module, (nn.Hardtanh,)):
        return module.min_val <= 0 <= module.max_val
    if _is_own(module, SPATIAL_MODULES.get(len(shape) - 2, ())):
        return getattr(module, "value", 0) == 0  # of a constant padding
    return _is_own(module, ZERO_KEEPING_MODULES)


def norm_partners(graph: Graph, modules: Mapping[str, nn.Module]) -> dict[str, list[str]]:
    """Maps each convolution to the affine batch norms that read it directly: they are switched with its filters."""
    calls = call_counts(graph)
    layer_of = {step.name: step.target for step in graph.steps if step.kind == "module"}
    partners: dict[str, list[str]] = {name: [] for name, module in modules.items() if is_convolution(module)}
    for step in graph.steps:
        if step.kind != "module" or not is_norm(modules[step.target]) or not step.reads:
            continue
        source = layer_of.get(step.reads[0])
        affine = modules[step.target].weight is not None and modules[step.target].bias is not None
        if source in partners and affine and calls[source] == calls[step.target] == 1:
            partners[source].append(step.target)
    return partners


def call_counts(graph: Graph) -> dict[str, int]:
    """Number of times each module is called; another use of one of its parameters counts as a call."""
    counts: dict[str, int] = {}
    for step in graph.steps:
        if step.kind == "module":
            counts[step.target] = counts.get(step.target, 0) + 1
    users = graph.users()
    for step in graph.steps:
        owner = str(step.target).rpartition(".")[0]
        if step.kind == "attribute" and owner in counts and not all(map(asks_for_device, users[step.name])):
            counts[owner] += 1
    for layer in graph.shared:
        counts[layer] += 1
    return counts


def hidden_at_positions(graph: Graph, modules: Mapping[str, nn.Module]) -> set[str]:
    """Names of the linear layers that run at many positions and read what another such layer makes, unit by unit.

    Works without `graph.shapes`: what a convolution makes has more than two axes, and so has what is made of it by
    moving axes, adding, and layers that keep axes.
    """
    wide: set[str] = set()  # values with more than two axes
    made: set[str] = set()  # of these, what linear layers make, and activations and products of it
    found: set[str] = set()
    keep_axes = (*MOVES, *ADDITIONS, *PRODUCTS, *EACH_ON_ITS_OWN_FUNCTIONS, F.layer_norm, torch.cat)
    for step in graph.steps:
        module = modules[step.target] if step.kind == "module" else None
        known = not wide.isdisjoint(step.reads)
        flattens_pixels = step.target in (torch.flatten, "flatten") and step.args[1:2] == (2,)
        keeps = isinstance(module, (*EACH_ON_ITS_OWN, nn.LayerNorm, _BatchNorm)) or step.target in keep_axes
        if module is not None and any(is_convolution(part) for part in module.modules()):  # alone, or kept whole
            wide.add(step.name)
        elif module is not None and known and is_linear(module):
            wide.add(step.name)
            made.add(step.name)
            if step.reads[0] in made:
                found.add(step.name)
        elif known and (keeps or flattens_pixels):
            wide.add(step.name)
        each = isinstance(module, EACH_ON_ITS_OWN) or step.target in (*EACH_ON_ITS_OWN_FUNCTIONS, *PRODUCTS)
        if each and step.name in wide and made.issuperset(step.reads):
            made.add(step.name)
    return found


def asks_for_device(step: Step) -> bool:
    """True for `x.device` and `x.dtype`."""
    return step.target is getattr and step.args[1] in ("device", "dtype")


def roles(graph: Graph, modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Names the role of each step; 'opaque' is anything unknown, which then receives all its channels.

    What a linear layer makes at many positions has its channels on the last axis: such a layer and what follows it
    alike are 'linear_last' and '..._last'. Needs `graph.shapes`.
    """
    calls, partners = call_counts(graph), norm_partners(graph, modules)
    partnered = {norm for norms in partners.values() for norm in norms}
    found: dict[str, str] = {}
    complete: set[str] = set()  # values that have all their channels, whatever is dropped
    for step in graph.steps:
        role = "opaque"
        module = modules[step.target] if step.kind == "module" else None
        behind = [is_last(found[name]) for name in step.reads if name in graph.shapes]
        if module is not None and is_linear(module):
            role = _linear_role(step, graph, found, complete) if calls[step.target] == 1 else "opaque"
        elif any(behind):
            role = _last_role(step, module, graph) if all(behind) else "opaque"
        elif module is not None and calls[step.target] == 1:
            role = _module_role(step, module, graph, partnered)
        elif module is not None:
            role = _pointwise_or_opaque(step, module, graph)
        elif step.kind in ("function", "method"):
            role = _function_role(step, graph)
        found[step.name] = role
        if role == "opaque" or (role in ("pointwise", "add", "multiply") and complete.issuperset(step.reads)):
            complete.add(step.name)
    return found


def is_last(role: str) -> bool:
    """True if what a step of this role makes has its channels on the last of more than two axes."""
    return role.endswith("_last")


def _linear_role(step: Step, graph: Graph, found: Mapping[str, str], complete: set[str]) -> str:
    """Role of a linear layer; where channels may be missing on another axis than the last, it mixes something else."""
    if len(graph.shapes[step.name]) == 2:
        return "linear"
    read = step.reads[0]
    whole = len(graph.shapes[step.name]) > 2 and (read in complete or is_last(found[read]))
    return "linear_last" if whole else "opaque"


def _last_role(step: Step, module: nn.Module | None, graph: Graph) -> str:
    """Role of a step that reads values with their channels on the last axis alone."""
    out, shapes = graph.shapes.get(step.name), [graph.shapes.get(name) for name in step.reads]
    if out is None or any(shape != out for shape in shapes):
        return "opaque"
    if module is not None:
        return "pointwise_last" if _is_own(module, EACH_ON_ITS_OWN) else "opaque"
    if len(step.args) == 2 and not step.kwargs and len(shapes) == 1 and step.target in PRODUCTS:
        return "pointwise_last" if any(isinstance(arg, (int, float)) for arg in step.args) else "opaque"
    if len(shapes) == 2 and len(step.args) == 2 and not step.kwargs:
        return "add_last" if step.target in ADDITIONS else "multiply_last" if step.target in PRODUCTS else "opaque"
    return "pointwise_last" if step.target in (*EACH_ON_ITS_OWN_FUNCTIONS, *ZERO_KEEPING_METHODS) else "opaque"


def _module_role(step: Step, module: nn.Module, graph: Graph, partnered: set[str]) -> str:
    if is_convolution(module):
        if module.groups == 1:
            return "convolution"
        return "depthwise" if module.groups == module.in_channels == module.out_channels else "grouped"
    if is_norm(module):
        return "norm" if step.target in partnered else "opaque"
    if _is_own(module, (nn.Flatten,)) and _flattens(step, graph):
        return "flatten"
    return _pointwise_or_opaque(step, module, graph)


def _pointwise_or_opaque(step: Step, module: nn.Module, graph: Graph) -> str:
    shapes = [graph.shapes.get(name) for name in (*step.reads, step.name)]
    return "opaque" if None in shapes or not is_zero_keeping(module, shapes[0]) else "pointwise"


def _flattens(step: Step, graph: Graph) -> bool:
    before, after = graph.shapes.get(step.reads[0]), graph.shapes.get(step.name)
    return before is not None and len(before) > 1 and after == (before[0], before[1:].numel())


def _function_role(step: Step, graph: Graph) -> str:
    shapes = [graph.shapes.get(name) for name in step.reads]
    out = graph.shapes.get(step.name)
    if step.target in ("size", "dim") or (step.target is getattr and step.args[1] in ("shape", "device", "dtype")):
        return "size" if _reads_no_channel(step, graph) else "opaque"
    if out is None or len(out) < 2 or None in shapes[:1] or not shapes:
        return "opaque"
    if step.target in (torch.flatten, "flatten", "view", "reshape", torch.reshape) and _flattens(step, graph):
        return "flatten"
    if step.target in (*ZERO_KEEPING_FUNCTIONS, *ZERO_KEEPING_METHODS, *SPATIAL_FUNCTIONS.get(len(shapes[0]) - 2, ())):
        return "pointwise"
    if step.target in ("mean", torch.mean) and _spatial_mean(step, len(shapes[0])):
        return "pointwise"
    if step.target in (torch.cat, torch.concat):
        dim = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim", 0)
        tensors_alone = bool(step.args) and len(step.args[0]) == len(step.reads)
        return "concatenate" if tensors_alone and dim % len(out) == 1 else "opaque"
    aligned = len(shapes) == 2 and None not in shapes and all(len(s) == len(out) and s[1] == out[1] for s in shapes)
    plain = len(step.args) == 2 and not step.kwargs
    if aligned and plain and step.target in ADDITIONS:
        return "add"
    if aligned and plain and step.target in PRODUCTS:
        return "multiply"
    scaled = plain and len(shapes) == 1 and any(isinstance(arg, (int, float)) for arg in step.args)
    return "pointwise" if scaled and step.target in PRODUCTS else "opaque"


def _spatial_mean(step: Step, ndim: int) -> bool:
    dims = step.args[1] if len(step.args) > 1 else step.kwargs.get("dim")
    if dims is None or isinstance(dims, Ref):
        return False
    dims = [dims] if isinstance(dims, int) else dims
    return len(dims) > 0 and all(dim % ndim >= 2 for dim in dims)


def _reads_no_channel(step: Step, graph: Graph) -> bool:
    """True if a size is only asked for the batch or for the spatial axes."""
    if step.target == "dim" or asks_for_device(step):
        return True
    if step.target == "size" and (len(step.args) > 1 or "dim" in step.kwargs):
        dim = step.args[1] if len(step.args) > 1 else step.kwargs["dim"]
        return isinstance(dim, int) and dim % len(graph.shapes[step.reads[0]]) != 1
    ndim = len(graph.shapes[step.reads[0]])
    return all(
        user.target is operator.getitem and isinstance(user.args[1], int) and user.args[1] % ndim != 1
        for user in graph.users()[step.name]
    )
