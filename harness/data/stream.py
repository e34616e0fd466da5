"""Images that are too many or too large for memory: threads read their files while training goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from harness.data import images

READ_AHEAD_BATCHES = 4


class Files:
    """The image files of a split.

    They are read by threads and not by processes: PIL decodes without Python's lock, and a copy of a process that has
    threads, as those of gloo and of the autograd engine, may wait for ever for a lock that one of them held.

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
        threads: int,
        device: torch.device,
    ) -> None:
        """Read the files `paths` below `root` at `size` pixels; `checksums` (examples,) are their CRC-32."""
        self.shape = (3, size, size)
        self._root, self._paths, self._checksums = root, paths, checksums
        self._size, self._crop_fraction, self._upright = size, crop_fraction, upright
        self._threads, self._device = threads, device

    def batches(self, batches: Iterable[Tensor], rectangles: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """For each batch of example numbers: pixels as `augment.gather` takes them, and which images in them.

        Args:
            batches: Example numbers.
            rectangles: (examples, 4): the part of each image that is shown, by `augment.draw_rectangles`.

        Raises:
            DataError: a file is missing, unreadable, or has changed.
        """
        reading: deque[list[Future[Tensor]]] = deque()
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="images")
        try:
            for batch in batches:
                reading.append([pool.submit(self._read, number, rectangles) for number in batch.tolist()])
                if len(reading) > READ_AHEAD_BATCHES:
                    yield self._together(reading.popleft())
            while reading:
                yield self._together(reading.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, number: int, rectangles: Tensor | None) -> Tensor:
        return images.decode(
            self._root / self._paths[number],
            size=self._size,
            crop_fraction=self._crop_fraction,
            upright=self._upright,
            crc=int(self._checksums[number]),
            rectangle=None if rectangles is None else rectangles[number].tolist(),
        )

    def _together(self, items: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
        """One row per pixel and a black one last, and the numbers of the images."""
        rows = torch.stack([item.result() for item in items]).permute(0, 2, 3, 1).reshape(-1, 3)
        rows = torch.cat([rows, rows.new_zeros(1, 3)])
        if self._device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self._device, non_blocking=True), torch.arange(len(items), device=self._device)
