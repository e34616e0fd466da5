"""Prints whether a teacher or an average of weights helps what a descent leaves, by curvature and by lot alike.

python -m bench.beyond_widths --seeds 1 2 3 4 5 6 7 8 9 10

A ResNet-8 on scikit-learn's digits keeps a tenth of its parameters: dense for .10 of all steps, on its way until .35,
compact afterwards. Within a seed all runs have the same initial weights and batches. The teacher is the full network as
it was at the end of the dense start; half of the loss is then its divergence from the softened outputs (Hinton et al.,
arXiv:1503.02531). The average is that of the weights after each step of the last half of the frozen part (Izmailov et
al., arXiv:1803.05407) of the run without a teacher. Batch norm is measured anew in every case. Accuracy is that of the
last 397 images, whose writers are not among those trained on.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from scipy import stats
from sklearn.datasets import load_digits
from torch import Tensor, nn

from bench.credit import BATCH, TRAINED_ON
from edropout import EDropout, Target
from harness.networks.build import build

KEPT, DENSE, ON_THE_WAY, RATE = 0.1, 0.1, 0.35, 0.05
SHARE, TEMPERATURE = 0.5, 2.0
WAYS = ("plain", "teacher", "averaged")


def distilled(teacher: nn.Module, x: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A training loss of (outputs, y), of which SHARE is the divergence from the teacher's softened outputs."""
    with torch.no_grad():
        soft = F.log_softmax(teacher(x) / TEMPERATURE, 1)

    def loss(outputs: Tensor, y: Tensor) -> Tensor:
        own = F.log_softmax(outputs / TEMPERATURE, 1)
        apart = F.kl_div(own, soft, log_target=True, reduction="batchmean") * TEMPERATURE**2
        return (1 - SHARE) * F.cross_entropy(outputs, y) + SHARE * apart

    return loss


def accuracies(by: str, taught: bool, seed: int, steps: int, data: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Percent of the test images that are right, with the weights of the end and with their average."""
    (x, y), generator = (part[:TRAINED_ON] for part in data), torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = build("resnet8", num_classes=10, input_shape=(1, 8, 8))
    start, end = round(DENSE * steps), round(ON_THE_WAY * steps)
    search = EDropout(model, target=Target(KEPT, warm_up=start, steps=end - start, by=by), seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.9, weight_decay=5e-4)
    averaging, teacher = (end + steps) // 2, model
    average = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for step in range(steps):
        if step == start:
            teacher = copy.deepcopy(model).eval()
        for group in optimizer.param_groups:
            group["lr"] = RATE / 2 * (1 + math.cos(math.pi * step / steps))
        batch = torch.randint(len(x), (BATCH,), generator=generator)
        criterion = distilled(teacher, x[batch]) if taught and step >= start else F.cross_entropy
        optimizer.zero_grad()
        search.loss(x[batch], y[batch], criterion=criterion).backward()
        search.step(optimizer)
        if step >= averaging:
            for name, value in model.named_parameters():
                average[name] += value.detach() / (steps - averaging)
    at_the_end = accuracy(search, data)
    model.load_state_dict(average, strict=False)
    return at_the_end, accuracy(search, data)


@torch.no_grad()
def accuracy(search: EDropout, data: tuple[Tensor, Tensor]) -> float:
    """Percent of the test images that the pruned network gets right."""
    (x, y), trained = data, data[0][:TRAINED_ON]
    smaller = search.prune(trained[start:end] for start, end in pairwise(range(0, TRAINED_ON + 1, BATCH))).eval()
    return 100 * float((smaller(x[TRAINED_ON:]).argmax(1) == y[TRAINED_ON:]).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[*range(1, 11)])
    parser.add_argument("--steps", type=int, default=660)
    options = parser.parse_args()
    digits = load_digits()
    data = torch.tensor(digits.images[:, None], dtype=torch.float32) / 16, torch.tensor(digits.target)
    found: dict[str, list[list[float]]] = {"curvature": [], "lot": []}
    print(f"seed by        {WAYS[0]:>9} {WAYS[1]:>9} {WAYS[2]:>9}")
    for seed in options.seeds:
        for by, rows in found.items():
            plain, averaged = accuracies(by, False, seed, options.steps, data)
            rows.append([plain, accuracies(by, True, seed, options.steps, data)[0], averaged])
            print(f"{seed:4} {by:9} {rows[-1][0]:9.2f} {rows[-1][1]:9.2f} {rows[-1][2]:9.2f}", flush=True)
    if len(options.seeds) > 1:
        for by, rows in found.items():
            columns = torch.tensor(rows, dtype=torch.float64).T
            print(f"{by}: plain {columns[0].mean():.2f} ± {columns[0].std():.2f}")
            for way, column in zip(WAYS[1:], columns[1:], strict=True):
                apart = column - columns[0]
                p = stats.ttest_1samp(apart.numpy(), 0.0).pvalue
                print(f"{by}: {way} {column.mean():.2f} ± {column.std():.2f}, apart {apart.mean():+.2f}, p {p:.3f}")


if __name__ == "__main__":
    main()
