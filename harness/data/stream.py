"""Images that are too many or too large for memory: worker processes read their files while training goes on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.data import images
from harness.data.prepared import DataError

PREFETCHED_BATCHES = 4


class Files:
    """The image files of a split.

    Attributes:
        shape: (channels, height, width) of every image once it is read.
    """

    def __init__(
        self,
        root: Path,
        paths: list[str],
        checksums: Tensor,
        *,
        size: int,
        crop_fraction: float,
        upright: bool,
        workers: int,
        device: torch.device,
    ) -> None:
        """Read the files `paths` below `root` at `size` pixels; `checksums` (examples,) are their CRC-32."""
        self.shape = (3, size, size)
        self._dataset = _Decoded(root, paths, checksums, size, crop_fraction, upright)
        self._workers, self._device = workers, device

    def batches(self, batches: Iterable[Tensor], rectangles: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of example numbers: pixels as `augment.gather` takes them, and which images in them.

        Args:
            batches: Example numbers.
            rectangles: (examples, 4): the part of each image that is shown, by `augment.draw_rectangles`.

        Raises:
            DataError: a file is missing, unreadable, or has changed.
        """
        loader = DataLoader(
            replace(self._dataset, rectangles=rectangles),
            batch_sampler=[batch.tolist() for batch in batches],
            collate_fn=_pixel_rows,
            num_workers=self._workers,
            prefetch_factor=PREFETCHED_BATCHES if self._workers else None,
            pin_memory=self._device.type == "cuda",
            # Without one of its own it would draw from the global generator, and a resumed run would differ.
            generator=torch.Generator().manual_seed(0),
        )
        for rows in loader:
            if isinstance(rows, str):
                raise DataError(rows)
            count = (len(rows) - 1) // (self.shape[1] * self.shape[2])
            yield rows.to(self._device, non_blocking=True), torch.arange(count, device=self._device)


@dataclass(frozen=True)
class _Decoded(Dataset):
    root: Path
    paths: list[str]
    checksums: Tensor
    size: int
    crop_fraction: float
    upright: bool
    rectangles: Tensor | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Tensor | str:
        # The error travels as text: DataLoader would wrap an exception into the traceback of its worker.
        try:
            return images.decode(
                self.root / self.paths[number],
                size=self.size,
                crop_fraction=self.crop_fraction,
                upright=self.upright,
                crc=int(self.checksums[number]),
                rectangle=None if self.rectangles is None else self.rectangles[number].tolist(),
            )
        except DataError as error:
            return str(error)


def _pixel_rows(items: list[Tensor | str]) -> Tensor | str:
    """One row per pixel and a black one last, or the first error."""
    for item in items:
        if isinstance(item, str):
            return item
    rows = torch.stack(items).permute(0, 2, 3, 1).reshape(-1, 3)
    return torch.cat([rows, rows.new_zeros(1, 3)])
