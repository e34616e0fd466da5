"""nn.LSTM that computes what an iteration keeps of its non-recurrent connections, or of its units altogether."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from dropouts.approximate.iteration import Iteration, Place
from dropouts.approximate.layers import tiled_product
from dropouts.approximate.parts import Kept, cut, select, spread
from dropouts.approximate.patterns import Tiles

State = tuple[Tensor, Tensor]


class CutLSTM(nn.LSTM):
    """In the place of nn.LSTM, with its parameters under their names; one choice of units for a whole sequence.

    Only what the input connections read is dropped (Zaremba et al., arXiv:1409.2329), unless `recurrent`: then the
    units dropped from a layer's output are dropped from its recurrence as well, and sleep: their state stays as it was.

    Args:
        reads: Place of the dropout before the first layer, if any.
        inner: Places between the layers; none where the LSTM has no dropout of its own.
        gives: Place of the dropout behind the last layer, if `recurrent` and any.
    """

    def __init__(
        self,
        layer: nn.LSTM,
        iteration: Iteration,
        reads: Place | None,
        inner: Sequence[Place | None],
        gives: Place | None,
        *,
        recurrent: bool,
    ) -> None:
        super().__init__(
            layer.input_size,
            layer.hidden_size,
            layer.num_layers,
            layer.bias,
            layer.batch_first,
            layer.dropout,
            device="meta",
        )
        for name, parameter in layer.named_parameters():
            setattr(self, name, parameter)
        self.iteration = iteration
        self.reads: list[Place | None] = [reads, *(inner or [None] * (layer.num_layers - 1))]
        self.gives: list[Place | None] = [*self.reads[1:], gives] if recurrent else [None] * layer.num_layers

    def forward(self, x: Tensor, hx: State | None = None) -> tuple[Tensor, State]:
        """As nn.LSTM's, for (time, batch, features) tensors, or batch first.

        Raises:
            ValueError: a packed sequence, or one without a batch.
        """
        if not self.training:
            return super().forward(x, hx)  # type: ignore[has-type]
        if isinstance(x, PackedSequence) or x.ndim != 3:
            raise ValueError("approximate dropout in an LSTM needs a tensor with time, batch and features")
        x = x.transpose(0, 1) if self.batch_first else x
        if hx is None:
            hx = (x.new_zeros(self.num_layers, x.shape[1], self.hidden_size),) * 2
        last = []
        for number in range(self.num_layers):
            if number > 0 and (place := self.reads[number]) is not None and not isinstance(self._pattern, Tiles):
                x = (x if self.gives[number - 1] else select(x, self.iteration.kept(place))) * place.scale
            x, state = self._layer(number, x, (hx[0][number], hx[1][number]))
            last.append(state)
        hidden, cell = (torch.stack(states) for states in zip(*last, strict=True))
        return x.transpose(0, 1) if self.batch_first else x, (hidden, cell)

    @property
    def _pattern(self) -> object:
        return self.iteration.pattern

    def _layer(self, number: int, x: Tensor, state: State) -> tuple[Tensor, State]:
        weights = [getattr(self, name) for name in self._all_weights[number]]
        reads, gives = self.reads[number], self.gives[number]
        if reads is not None and isinstance(self._pattern, Tiles):
            return self._tiled_layer(weights, reads, x, state)
        units, columns = self.iteration.kept(gives), self.iteration.kept(reads)
        parts = [self._part(weights[0], units, columns), self._part(weights[1], units, units)]
        parts += [self._part(bias, units) for bias in weights[2:]]
        if gives is None or units is None:
            return run(x, state, parts)
        parts[1] = parts[1] * gives.scale
        y, small = run(x, (select(state[0], units), select(state[1], units)), parts)
        return y, (spread(small[0], units, state[0]), spread(small[1], units, state[1]))

    def _part(self, parameter: Tensor, units: Kept | None, columns: Kept | None = None) -> Tensor:
        if units is None and columns is None:
            return parameter
        return self.iteration.part(parameter, lambda: cut(parameter.shape, units, columns, gates=4))

    def _tiled_layer(self, weights: list[Tensor], place: Place, x: Tensor, state: State) -> tuple[Tensor, State]:
        gates = tiled_product(x, weights[0], self.iteration, place)
        for bias in weights[2:]:
            gates = gates + bias
        hidden, cells = Recurrence.apply(*(value.to(weights[1].dtype) for value in (gates, weights[1], *state)))
        return hidden, (hidden[-1], cells)


def run(x: Tensor, state: State, weights: list[Tensor]) -> tuple[Tensor, State]:
    """One layer by torch's own kernel: (time, batch, features), two of (batch, hidden)."""
    first = state[0][None].contiguous(), state[1][None].contiguous()
    y, hidden, cell = torch.lstm(x.contiguous(), first, weights, len(weights) == 4, 1, 0.0, True, False, False)
    return y, (hidden[0], cell[0])


class Recurrence(torch.autograd.Function):
    """What is left of an LSTM layer when the product with its input has been taken: nn.LSTM's equations, gates i f g o.

    From gates (time, batch, 4 hidden), weight_hh and the state before to the outputs (time, batch, hidden) and the last
    cells. The gradient of the weight is one product over all times.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        time, batch, _ = gates.shape
        width = hidden.shape[-1]
        hiddens, cells = (gates.new_empty(time + 1, batch, width) for _ in range(2))
        hiddens[0], cells[0] = hidden, cell
        active = torch.empty_like(gates)
        for t in range(time):
            now = torch.addmm(gates[t], hiddens[t], weight.t(), out=active[t])
            now[:, : 2 * width].sigmoid_()
            now[:, 2 * width : 3 * width].tanh_()
            now[:, 3 * width :].sigmoid_()
            i, f, g, o = now.chunk(4, -1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.mul(o, cells[t + 1].tanh(), out=hiddens[t + 1])
        ctx.save_for_backward(active, hiddens, cells, weight)
        return hiddens[1:].clone(), cells[-1].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor, grad_cell: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        active, hiddens, cells, weight = ctx.saved_tensors
        i, f, g, o = active.chunk(4, -1)
        tanh = cells[1:].tanh()
        from_cell = torch.cat([g * i * (1 - i), cells[:-1] * f * (1 - f), i * (1 - g * g)], -1)
        from_hidden, to_cell = tanh * o * (1 - o), o * (1 - tanh * tanh)
        grads = torch.empty_like(active)
        width, cell, hidden = tanh.shape[-1], grad_cell, torch.zeros_like(grad_cell)
        for t in reversed(range(len(active))):
            hidden = hidden + grad_hidden[t]
            cell = torch.addcmul(cell, hidden, to_cell[t])
            torch.mul(cell.repeat(1, 3), from_cell[t], out=grads[t, :, : 3 * width])
            torch.mul(hidden, from_hidden[t], out=grads[t, :, 3 * width :])
            hidden, cell = grads[t] @ weight, cell * f[t]
        grad_weight = grads.flatten(0, 1).t() @ hiddens[:-1].flatten(0, 1)
        return grads, grad_weight, hidden, cell
