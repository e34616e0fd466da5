"""Times a whole training step with approximate random dropout beside one with PyTorch's own nn.Dropout.

Forward pass, backward pass, gradient clipping (LSTM) and optimiser, in one process, the sides taking turns; a number is
the median over rounds of several steps. PyTorch's side is the faster of
its forms, with and without a fused optimiser (autograd refuses dropout in place behind a ReLU). The floor is the ratio
of multiplications, which nothing that computes all that is kept can exceed; what is no product (activations, the plain
side's coins) is outside it.

python -m bench.approximate_dropout                                  MLPs of 512 to 4096, LSTMs of 200 to 1500 units
python -m bench.approximate_dropout --mlp 2048 --lstm --threads 2    one MLP, no LSTM
python -m bench.approximate_dropout --device cuda
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from dropouts.approximate import ApproximateDropout, Blocks, Rows, SomeBlocks, Tiles, least_variance
from dropouts.approximate.patterns import Pattern

INPUTS, CLASSES, BATCH = 784, 10, 128
TOKENS, SEQUENCES, TIMES = 10_000, 20, 35
VARIANTS: dict[str, Callable[[], Pattern]] = {
    "blocks": Blocks,
    "some blocks": SomeBlocks,
    "rows": Rows,
    "tiles": Tiles,
    "blocks, recurrent too": Blocks,
}


def mlp(width: int, rate: float) -> nn.Module:
    """784 - width - width - 10."""
    hidden = [nn.Linear(INPUTS, width), nn.ReLU(), nn.Dropout(rate)]
    hidden += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(rate)]
    return nn.Sequential(*hidden, nn.Linear(width, CLASSES))


class LanguageModel(nn.Module):
    """Two LSTM layers between an embedding and a softmax over 10,000 words (Zaremba et al., arXiv:1409.2329)."""

    def __init__(self, width: int, rate: float) -> None:
        super().__init__()
        self.embedding, self.dropout = nn.Embedding(TOKENS, width), nn.Dropout(rate)
        self.lstm, self.behind = nn.LSTM(width, width, 2, dropout=rate), nn.Dropout(rate)
        self.words = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        """(time, batch) numbers of words -> (time, batch, words) logits."""
        return self.words(self.behind(self.lstm(self.dropout(self.embedding(tokens)))[0]))


def batch(kind: str, device: torch.device) -> tuple[Tensor, Tensor]:
    if kind == "mlp":
        return torch.randn(BATCH, INPUTS, device=device), torch.randint(CLASSES, (BATCH,), device=device)
    tokens = torch.randint(TOKENS, (2, TIMES, SEQUENCES), device=device)
    return tokens[0], tokens[1]


def plain_step(network: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, clip: float | None) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(network(x).flatten(0, -2), y.flatten()).backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(network.parameters(), clip)
    optimizer.step()


def our_step(
    approximate: ApproximateDropout, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, clip: float | None
) -> None:
    optimizer.zero_grad()
    functional.cross_entropy(approximate.network(x).flatten(0, -2), y.flatten()).backward()
    if clip is not None:
        nn.utils.clip_grad_norm_(approximate.parameters(), clip)
    approximate.step(optimizer)


def sides(kind: str, width: int, rate: float, variants: list[str], device: torch.device) -> dict[str, Callable]:
    """A step of each side, of networks with the same architecture and optimiser."""
    build, clip, options = (
        (mlp, None, {"lr": 0.01, "momentum": 0.9}) if kind == "mlp" else (LanguageModel, 5.0, {"lr": 1.0})
    )
    x, y = batch(kind, device)
    steps: dict[str, Callable] = {}
    for fused in (False, True):
        network = build(width, rate).to(device)
        optimizer = torch.optim.SGD(network.parameters(), **options, fused=fused)
        steps[f"plain{fused}"] = partial(plain_step, network, optimizer, x, y, clip)
    for name in variants:
        if kind == "lstm" or "recurrent" not in name:
            network = build(width, rate).to(device)
            recurrent = "recurrent" in name
            approximate = ApproximateDropout(network, pattern=VARIANTS[name](), recurrent=recurrent)
            optimizer = torch.optim.SGD(network.parameters(), **options, fused=True)
            steps[name] = partial(our_step, approximate, optimizer, x, y, clip)
    return steps


def floor(kind: str, width: int, rate: float, name: str) -> float:
    """Multiplications of a plain step over the expected ones of ours; places draw independently of each other."""
    kept = 1 - rate
    periods = least_variance(rate)
    both = float(periods @ torch.arange(1, len(periods) + 1, dtype=periods.dtype) ** -2)  # E[1/dp^2]: one place.
    if name == "some blocks":
        both = kept**2
    if kind == "mlp":  # The gradient of the input is not computed.
        products = [(2 * INPUTS * width, 1.0 if name == "tiles" else kept),
                    (3 * width * width, kept if name == "tiles" else kept**2), (3 * width * CLASSES, kept)]  # fmt: skip
    else:
        inputs, states = (kept**2, both) if "recurrent" in name else (kept, 1.0)
        products = [(8 * width * width, inputs), (8 * width * width, states), (width * TOKENS, kept)]  # fmt: skip
    return sum(macs for macs, _ in products) / sum(macs * share for macs, share in products)


def measure(steps: dict[str, Callable], options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a step of every side, by rounds; the first round warms up."""
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(options.rounds + 1):
        for name, step in steps.items():
            started = clock()
            for _ in range(options.steps):
                step()
            if options.device != "cpu":
                torch.cuda.synchronize()
            if number > 0:
                seconds[name].append((clock() - started) / options.steps)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mlp", type=int, nargs="*", default=[512, 1024, 2048, 4096], help="widths")
    parser.add_argument("--lstm", type=int, nargs="*", default=[200, 650, 1500], help="widths")
    parser.add_argument("--rates", type=float, nargs="+", default=[0.3, 0.5, 0.7])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="of a round; patterns differ in size from step to step")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: seconds of work, of all threads")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    print("| network | threads | rate | pattern | nn.Dropout, ms | ours, ms | ratio | floor |")
    print("|:--|--:|--:|:--|--:|--:|--:|--:|")
    for threads in options.threads:
        torch.set_num_threads(threads)
        for kind, width in [("mlp", w) for w in options.mlp] + [("lstm", w) for w in options.lstm]:
            for rate in options.rates:
                torch.manual_seed(0)
                seconds = measure(sides(kind, width, rate, options.variants, device), options)
                plain = min((seconds.pop(f"plain{fused}") for fused in (False, True)), key=statistics.median)
                for name, ours in seconds.items():
                    ratio = statistics.median(p / o for p, o in zip(plain, ours, strict=True))
                    print(f"| {kind} {width} | {threads} | {rate} | {name} | {1e3 * statistics.median(plain):.1f} | "
                          f"{1e3 * statistics.median(ours):.1f} | {ratio:.2f} | {floor(kind, width, rate, name):.2f} |",
                          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
