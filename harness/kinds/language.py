"""Language: the next token of a running text, cross-entropy, perplexity; recurrent networks carry their state."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.kinds import Carry, Kind, Metric

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

LARGEST_EXPONENT = 700.0
"""exp of more is no number."""


class Language(Kind):
    """Logits (batch, time, vocabulary) against the next tokens y (batch, time) int64.

    An example is a token. Row b of a batch goes on where row b of the batch before it ended, so the state of recurrent
    layers is carried from batch to batch, cut off from the gradient: truncated back-propagation through time.
    """

    name = "language"
    main = Metric("perplexity", "perplexity", digits=2, low=1)
    metrics = (Metric("loss", "loss", low=0), main)
    noun = "texts"
    sources = ("ptb", "wikitext2", "text", "grammar")
    caption = "Perplexity: per word over the whole test text, read once from its start. MACs: of one word."

    def loss(self, outputs: Tensor, y: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.cross_entropy(outputs.flatten(0, 1), y.flatten())

    def sums(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        from torch.nn import functional

        return {"loss": functional.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="sum").double().item()}

    def summary(self, means: Mapping[str, float], val: Mapping[str, float] | None = None) -> dict[str, float]:
        """`loss`: mean cross-entropy per token in nats; `perplexity`: its exponential."""
        return {"loss": means["loss"], "perplexity": perplexity(means["loss"])}

    def chance(self, train: Tensor, test: Tensor) -> float:
        """Perplexity of the training text's word frequencies, each counted once more than it is there."""
        import torch

        words = int(max(train.max(), test.max())) + 1
        counts = torch.bincount(train.flatten(), minlength=words).double() + 1
        return perplexity(-(counts / counts.sum()).log()[test.flatten()].mean().item())

    def example(self, input_shape: Iterable[int], batch: int = 1, device: torch.device | str = "cpu") -> Tensor:
        import torch

        return torch.zeros(batch, *input_shape, dtype=torch.int64, device=device)

    def output_shape(self, input_shape: tuple[int, ...], outputs: int) -> tuple[int, ...]:
        return (*input_shape, outputs)

    def examples_in(self, input_shape: tuple[int, ...]) -> int:
        return math.prod(input_shape)

    def carry(self, network: nn.Module) -> RecurrentState:
        return RecurrentState(network)

    def objections(self, evaluation: Mapping[str, float]) -> Iterator[str]:
        expected = perplexity(evaluation["loss"])
        if abs(evaluation["perplexity"] - expected) > 1e-6 * expected:
            yield f"perplexity = {evaluation['perplexity']} is not the exponential of loss = {evaluation['loss']}"


class RecurrentState(Carry):
    """The state of a network's recurrent layers, handed from one batch to the next.

    While attached, every pass of a layer starts from the state at the end of the batch before, however often the batch
    is passed through the network; `advance` takes over what the batch's last pass left.

    Args:
        network: Its nn.RNN, nn.GRU and nn.LSTM layers are found when `attached` begins, so a method may exchange them
            for layers of the same interface before it trains. Layers that are given a state keep it.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._states: dict[str, tuple[Tensor, ...]] = {}
        self._left: dict[str, tuple[Tensor, ...]] = {}

    def reset(self) -> None:
        """Start a text: the next pass begins with zeros."""
        self._states, self._left = {}, {}

    def advance(self) -> None:
        """Go on to the next batch."""
        self._states, self._left = dict(self._left), {}

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Have the layers' passes start from the state; nothing of it is left behind."""
        handles = []
        for name, layer in recurrent_layers(self.network):

            def give(layer: nn.Module, inputs: tuple, options: dict, name: str = name) -> tuple[tuple, dict]:
                state = self._states.get(name)
                if len(inputs) > 1 or "hx" in options or state is None:
                    return inputs, options
                return inputs, {**options, "hx": state if len(state) > 1 else state[0]}

            def take(layer: nn.Module, inputs: tuple, outputs: tuple, name: str = name) -> None:
                state = outputs[1] if isinstance(outputs[1], tuple) else (outputs[1],)
                self._left[name] = tuple(part.detach() for part in state)

            handles += [layer.register_forward_pre_hook(give, with_kwargs=True), layer.register_forward_hook(take)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def state_dict(self) -> dict[str, Any]:
        return {"states": dict(self._states)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        device = next(self.network.parameters()).device
        self._states = {name: tuple(part.to(device) for part in parts) for name, parts in state["states"].items()}
        self._left = {}


def recurrent_layers(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """nn.RNN, nn.GRU and nn.LSTM layers by name, in the network's order."""
    from torch.nn import RNNBase

    return [(name, module) for name, module in network.named_modules() if isinstance(module, RNNBase)]


def perplexity(loss: float) -> float:
    """The exponential of a loss per token; a hopeless one stays a number."""
    return math.exp(min(loss, LARGEST_EXPONENT))


KIND = Language()
