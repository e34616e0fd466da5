"""Each conformance check refuses the methods that it is there to refuse, with a sentence."""

import pytest
import torch
from small_networks import residual
from torch import nn
from torch.nn.utils import prune

from harness.runs import checks
from harness.runs.checks import RECIPE, Subject


def honest(model, task):
    return task.train(model)


def lazy(model, task):
    return task.train(model, epochs=2)


def positional(model, task, rate=0.5):
    return task.train(model)


def without_default(model, task, *, rate):
    return task.train(model)


def renamed(network, task):
    return task.train(network)


def returns_nothing(model, task):
    task.train(model)


def drops_a_class(model, task):
    return nn.Sequential(task.train(model), nn.Linear(3, 2))


def explodes(model, task):
    task.train(model)
    with torch.no_grad():
        model[-1].bias[0] = float("nan")
    return model


def forgets(model, task):
    task.train(model)
    with torch.no_grad():
        model[-1].weight.zero_()
    return model


def global_randomness(model, task):
    with torch.no_grad():
        model[0].weight.add_(torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(next(draws))))
    return task.train(model)


draws = iter(range(1000))


def counts_its_phases_in_memory(model, task):
    task.train(model, epochs=3)
    memory.append(1)
    with torch.no_grad():
        model[-1].bias.add_(len(memory))
    return task.train(model)


memory = []


def own_loop(model, task):
    optimizer = RECIPE.make_optimizer(model.parameters())
    for epoch in range(RECIPE.epochs):
        for x, y in task.train_loader.epoch(epoch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    task.run.epoch = RECIPE.epochs
    return model


class BatchStatistics(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x - x.mean(0))


def looks_at_other_images(model, task):
    return BatchStatistics(task.train(model))


class Noisy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + 1e-3 * torch.randn(1)


def stays_random(model, task):
    return Noisy(task.train(model))


def leaks_a_norm_bias(model, task):
    task.train(model)
    with torch.no_grad():
        model[3].conv1.weight[0] = 0
        model[3].bn1.weight[0] = 0
        model[3].bn1.bias[0] = 0
    model[3].bn1.register_forward_hook(lambda module, inputs, output: output + 1)
    return model


def zeroes_filters_and_trains(model, task):
    with torch.no_grad():
        model[3].conv1.weight[:4] = 0
    return task.train(model)


def says_that_it_prunes(model, task, *, prune_ratio=0.5):
    return task.train(model)


def keeps_its_mask_beside_the_weights(model, task, *, prune_ratio=0.5):
    prune.l1_unstructured(model[3].conv1, "weight", amount=prune_ratio)
    return task.train(model)


def starts_a_layer_at_zero(model, task):
    with torch.no_grad():
        model[3].conv2.weight.zero_()
    return task.train(model)


@pytest.mark.parametrize(
    ("fit", "check", "sentence"),
    [
        (renamed, checks.check_signature, r"fit\(network, task"),
        (positional, checks.check_signature, "rate must be keyword-only"),
        (without_default, checks.check_signature, "rate must have a default"),
        (returns_nothing, checks.check_returns_a_network_from_images_to_logits, "not NoneType"),
        (drops_a_class, checks.check_returns_a_network_from_images_to_logits, r"logits of \(48, 2\)"),
        (explodes, checks.check_returns_a_network_from_images_to_logits, "not finite"),
        (lazy, checks.check_uses_exactly_its_budget, "used 2 of 6 epochs"),
        (forgets, checks.check_learns, "top1 on easy data"),
        (global_randomness, checks.check_the_same_seed_gives_the_same_bits, "task.generator only"),
        (counts_its_phases_in_memory, checks.check_an_interrupted_run_ends_with_the_same_bits, "other bits"),
        (own_loop, checks.check_an_interrupted_run_ends_with_the_same_bits, "train with task.train"),
        (looks_at_other_images, checks.check_evaluation_is_deterministic_and_sees_each_image_alone, "other images"),
        (stays_random, checks.check_evaluation_is_deterministic_and_sees_each_image_alone, "same images differ"),
        (
            zeroes_filters_and_trains,
            checks.check_what_is_pruned_is_gone_at_the_end,
            r"288 of 288 weights of '3.conv1.w",
        ),
        (says_that_it_prunes, checks.check_what_is_pruned_is_gone_at_the_end, "prunes a share of 0.5 and .* are left"),
        (keeps_its_mask_beside_the_weights, checks.check_what_is_pruned_is_gone_at_the_end, "made permanent by its"),
        (leaks_a_norm_bias, checks.check_removal_does_not_change_the_logits, "cannot be removed"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_method_that_breaks_a_rule_is_told_which(fit, check, sentence):
    torch.set_num_threads(1)
    options = {"rate": 0.5} if fit is without_default else {}
    with pytest.raises(AssertionError, match=sentence):
        check(Subject(fit, residual, from_dense=fit is zeroes_filters_and_trains, hyperparameters=options))


def test_a_method_that_reads_a_file_beside_its_inputs_is_caught(tmp_path):
    secret = tmp_path / "test_set.safetensors"
    secret.write_bytes(b"labels")

    def fit(model, task):
        secret.read_bytes()
        return task.train(model)

    with pytest.raises(AssertionError, match=r"test_set\.safetensors, which is none of its inputs"):
        checks.check_never_sees_the_test_set(Subject(fit, residual))


def test_a_layer_that_starts_at_zero_has_not_been_pruned():
    checks.check_what_is_pruned_is_gone_at_the_end(Subject(starts_a_layer_at_zero, residual))


@pytest.mark.parametrize("check", checks.CHECKS)
def test_plain_training_passes(check):
    check(Subject(honest, residual))
