"""DropBlock: dropout of square regions of a feature map, since neighbours carry the same information."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from dropouts.checks import check_rate
from dropouts.plain import Noise


class DropBlock(Noise):
    """Zeroes block x block squares of each feature map and scales the rest up; identity in evaluation mode.

    Ghiasi, Lin & Le, NeurIPS 2018, arXiv:1810.12890: centres are drawn where a whole block fits, for each channel on
    its own, with probability g = p / block^2 * (H W) / ((H - block + 1) (W - block + 1)); what is left is multiplied by
    values / kept values of the whole batch. Blocks overlap, so that somewhat less than p is dropped. The paper raises
    the rate linearly during training: `Scheduled(DropBlock(), ramp())`.

    Args:
        rate: Drop rate p, about; the paper's keep rate is 0.9.
        block_size: Side of a block; a smaller map is one block's side. 7 is the paper's.

    Raises:
        ValueError: a rate outside [0, 1), an input that is no batch of feature maps.
    """

    def __init__(self, rate: float = 0.1, block_size: int = 7) -> None:
        super().__init__()
        self.rate, self.block_size = check_rate(rate), block_size

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError(
                f"DropBlock needs (batch, channels, height, width), not a tensor of shape {tuple(x.shape)}"
            )
        if not self.training or not self.rate:
            return x
        height, width = x.shape[-2:]
        block = min(self.block_size, height, width)
        valid = (height - block + 1) * (width - block + 1)
        centres = x.new_empty((*x.shape[:2], height - block + 1, width - block + 1))
        centres.bernoulli_(min(1.0, self.rate / block**2 * height * width / valid))
        kept = 1 - functional.max_pool2d(functional.pad(centres, (block - 1,) * 4), kernel_size=block, stride=1)
        return x * kept * (kept.numel() / kept.sum().clamp(min=1))

    def extra_repr(self) -> str:
        return f"rate={self.rate}, block_size={self.block_size}"
