"""What every method must satisfy, ours or a third party's: run the functions of CHECKS on a Subject, in seconds."""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import Tensor, nn

from dropouts.sampling import sample
from harness.measure.metrics import evaluate, nonzero, parameters
from harness.pruning.structured import remove
from harness.runs.subject import CLASSES, RECIPE, SHAPE, EasyData, Subject
from harness.training.memory import Interrupted

__all__ = ["CHECKS", "RECIPE", "Subject"]

TOLERANCE = 1e-4


def check_signature(subject: Subject) -> None:
    parameters = list(inspect.signature(subject.fit).parameters.values())
    first = [parameter.name for parameter in parameters[:2]]
    assert first == ["model", "task"], f"fit must be fit(model, task, *, ...), not fit({', '.join(first)}, ...)"
    for parameter in parameters[2:]:
        assert parameter.kind is parameter.KEYWORD_ONLY, f"hyper-parameter {parameter.name} must be keyword-only"
        assert parameter.default is not parameter.empty, f"hyper-parameter {parameter.name} must have a default"


def check_returns_a_network_from_images_to_logits(subject: Subject) -> None:
    network = subject.outcome.network
    assert isinstance(network, nn.Module), f"fit must return a torch.nn.Module, not {type(network).__name__}"
    output = logits(network)
    assert tuple(output.shape) == (48, CLASSES), f"48 images of {CLASSES} classes gave logits of {tuple(output.shape)}"
    assert bool(output.isfinite().all()), "the network's logits are not finite"


def check_uses_exactly_its_budget(subject: Subject) -> None:
    used = subject.outcome.task.run.epoch
    assert used == RECIPE.epochs, f"the method used {used} of {RECIPE.epochs} epochs: equal terms means all of them"


def check_learns(subject: Subject) -> None:
    top1 = evaluate(subject.outcome.network, subject.outcome.task.val_loader)["top1"]
    assert top1 > 0.6, f"top1 on easy data of {CLASSES} classes is only {top1:.2f}"


def check_the_same_seed_gives_the_same_bits(subject: Subject) -> None:
    assert same_bits(subject.outcome.network, subject.run("again").network), (
        "two runs with the same seed differ: draw random numbers from task.generator only"
    )


def check_an_interrupted_run_ends_with_the_same_bits(subject: Subject) -> None:
    own = RECIPE.epochs - (RECIPE.prune_epoch if subject.from_dense else 0)
    batches = own * len(subject.outcome.task.train_loader)
    for stop in (2, batches // 2, batches - 1):
        interrupted = False
        try:
            subject.run(f"stop{stop}", stop_after=stop)
        except Interrupted:
            interrupted = True
        assert interrupted, f"the run was told to stop at batch {stop} of {batches} and went on: train with task.train"
        resumed = subject.run(f"stop{stop}")
        drawn, whole = resumed.task.train_loader.drawn, subject.outcome.task.train_loader.drawn
        assert drawn < whole, (
            f"a run that stopped at batch {stop} of {batches} drew all batches again: it does not resume"
        )
        assert same_bits(subject.outcome.network, resumed.network), (
            f"a run that stopped at batch {stop} of {batches} and was resumed ends with other bits: what happens "
            "between two calls of task.train must follow from the network's weights and task.generator alone"
        )


def check_a_run_killed_after_its_last_epoch_is_restored(subject: Subject) -> None:
    before = subject.outcome
    own = (RECIPE.epochs - (RECIPE.prune_epoch if subject.from_dense else 0)) * len(before.task.train_loader)
    again = subject.run("whole")
    drawn, left = again.task.train_loader.drawn, before.task.train_loader.drawn - own
    assert drawn <= left, (
        f"a run that was killed after its last epoch drew {drawn - left} batches again: it is trained anew"
    )
    assert same_bits(before.network, again.network), (
        "a run that was killed after its last epoch ends with other bits: whatever fit does after task.train must "
        "follow from the network's weights and from the state that was handed to task.train"
    )


def check_evaluation_is_deterministic_and_sees_each_image_alone(subject: Subject) -> None:
    network = subject.outcome.network
    together = logits(network)
    assert torch.equal(together, logits(network)), "two evaluations of the same images differ"
    alone = logits(network, examples=1)
    error = float((together[:1] - alone).abs().max())
    assert error < TOLERANCE, f"an image's logits change by {error:.1e} with the other images of its batch"


def check_never_sees_the_test_set(subject: Subject) -> None:
    task = subject.outcome.task
    held = [name for name in vars(task) if "test" in name]
    assert not held, f"the task holds {held[0]}: methods must not see the test set"
    allowed = [subject.folder, *(Path(path).parent for path in subject.inputs.values())]
    for path in sorted(subject.outcome.opened):
        inside = any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in allowed)
        assert inside, f"the method opened {path}, which is none of its inputs: it could read the test set there"


def check_removal_does_not_change_the_logits(subject: Subject) -> None:
    network = subject.outcome.network.eval()
    try:
        smaller = remove(network, torch.zeros(2, *SHAPE))
    except ValueError as refusal:
        raise AssertionError(f"the units that are zero cannot be removed: {refusal}") from refusal
    error = float((logits(network) - logits(smaller)).abs().max())
    assert error < TOLERANCE, f"removing the units that are zero changes the logits by {error:.1e}"


def check_what_is_pruned_is_gone_at_the_end(subject: Subject) -> None:
    back = subject.outcome.task.grown_back
    assert not back, (
        f"{back[0]} were zero before task.train and are not after it: remove units with harness.pruning.structured."
        "prune_units, or hold single weights at zero with harness.pruning.unstructured.train_masked"
    )
    if ratio := pruned_share(subject):
        dense, network = parameters(subject.build()), remove(subject.outcome.network.eval(), torch.zeros(2, *SHAPE))
        left = nonzero(network)
        assert left < dense, (
            f"the method prunes a share of {ratio:g} and {left:,} of {dense:,} parameters are left: return the network "
            "without them, or with exact zeros (a mask of torch.nn.utils.prune is made permanent by its remove)"
        )


def check_can_be_copied_saved_and_loaded(subject: Subject) -> None:
    network, path = subject.outcome.network, subject.folder / "saved.safetensors"
    twin = copy.deepcopy(network)
    save_model(network, str(path))
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    load_model(twin, str(path))
    assert torch.equal(logits(network), logits(twin)), "saving the weights and loading them changes the logits"


def check_what_it_leaves_for_sampling_predicts(subject: Subject) -> None:
    left = subject.outcome.task.run.sampled
    if left is None:
        return
    outputs = sample(left, EasyData(examples=48, seed=3).x, RECIPE.samples)
    assert tuple(outputs.shape) == (RECIPE.samples, 48, CLASSES), (
        f"the network left for sampling gave logits of {tuple(outputs.shape[1:])} for 48 images of {CLASSES} classes"
    )
    assert bool(outputs.isfinite().all()), "the logits of the network left for sampling are not finite"
    before = logits(subject.outcome.network)
    error = float((before - logits(left)).abs().max())
    assert error < TOLERANCE, (
        f"without sampling, the network left for it gives logits that differ by {error:.1e} from those of the network "
        "that fit returned: call task.also_sampled behind the last task.train"
    )


def pruned_share(subject: Subject) -> float:
    """The share that the method says it prunes, by the hyper-parameter of that name; 0 if it says nothing."""
    defaults = {name: each.default for name, each in inspect.signature(subject.fit).parameters.items()}
    given = {**defaults, **subject.hyperparameters}
    ratios = [given.get("prune_ratio"), 1 - given["target_kept"] if given.get("target_kept") else None]
    return next((float(ratio) for ratio in ratios if isinstance(ratio, int | float)), 0.0)


CHECKS = tuple(function for name, function in list(globals().items()) if name.startswith("check_"))


@torch.no_grad()
def logits(network: nn.Module, examples: int = 48) -> Tensor:
    """Logits of the first images of a fixed set, in evaluation mode."""
    return network.eval()(EasyData(examples=48, seed=3).x[:examples])


def same_bits(left: nn.Module, right: nn.Module) -> bool:
    """True if both networks have the same parameters and buffers, bit for bit."""
    one, other = left.state_dict(), right.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
