"""Image files to square tensors of one size; an unreadable or changed file is an error that names it."""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from harness.data.prepared import DataError

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFile import ImageFile

EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".avif", ".webp"),
    *(".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".qoi"),
}
"""Image files as PIL reads them alone; of a file that holds several pictures it reads the first."""


def decode(
    path: Path,
    *,
    size: int | None,
    crop_fraction: float = 1.0,
    upright: bool = False,
    crc: int | None = None,
    rectangle: Sequence[float] | None = None,
) -> Tensor:
    """Read an image file as red, green and blue.

    Args:
        path: The file.
        size: Side of the square to make: the shorter side becomes size / crop_fraction pixels (bilinear, as PIL
            does it), then the centre is cut out. An image of that very size is left as it is. None = as it is.
        crop_fraction: Share of the shorter side that is kept.
        upright: Turn it as its EXIF orientation says; otherwise the pixels are taken as they are stored.
        crc: CRC-32 that the file had when the dataset was prepared; None = do not check.
        rectangle: Make the square of this part of the image instead, a row of `augment.draw_rectangles`.

    Returns:
        (3, height, width) uint8.

    Raises:
        DataError: the file is missing, unreadable, not the one that was prepared, or has more than 8 bits per channel.
    """
    from PIL import Image

    content = read(path)
    if crc is not None and zlib.crc32(content) != crc:
        raise DataError(f"{path} has changed since its dataset was prepared: restore it or prepare the dataset again")
    with _opened(path, content) as file:
        image = (_upright(file) if upright else file).convert("RGB")
    if rectangle is not None:
        image = image.resize((size, size), Image.Resampling.BILINEAR, box=_box(image.size, rectangle))
    elif size is not None and image.size != (size, size):
        side = round(size / crop_fraction)
        scale = side / min(image.size)
        image = image.resize([max(side, round(length * scale)) for length in image.size], Image.Resampling.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    # NumPy's copy: torch's own would start as many threads as a training step has, in each thread that decodes.
    pixels = numpy.frombuffer(image.tobytes(), dtype=numpy.uint8).reshape(image.height, image.width, 3)
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy())


def checksum(path: Path) -> int:
    """CRC-32 of an image file that can be read to its end.

    Raises:
        DataError: as `decode` does.
    """
    content = read(path)
    with _opened(path, content) as file:
        file.draft("RGB", (1, 1))  # JPEG files at an eighth of their size: all bytes are read, in less time
        file.load()
    return zlib.crc32(content)


@contextmanager
def _opened(path: Path, content: bytes) -> Iterator[ImageFile]:
    """The image, whose faults are raised as a DataError that names its path, wherever in the block they show."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as file:
            if file.mode.startswith(("I", "F")):
                # PIL would clip their values to 255.
                raise DataError(f"{path} has grey values of more than 8 bits: convert such images to 8 bits")
            yield file
    except DataError:
        raise
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path} is no image in a known format: replace or remove it") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no readable image ({error}): replace or remove it") from error


def _upright(file: ImageFile) -> Image.Image:
    """The image as its EXIF orientation says that it was taken; of a damaged EXIF block, as it is stored."""
    from PIL import ExifTags, Image

    file.load()  # TIFF files are turned by this already, and then say so.
    try:
        orientation = file.getexif().get(ExifTags.Base.Orientation)
    except (SyntaxError, struct.error):
        return file
    turn = Image.Transpose
    turns = {
        **{2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM},
        **{5: turn.TRANSPOSE, 6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90},
    }
    return file.transpose(turns[orientation]) if orientation in turns else file


def _box(size: tuple[int, int], rectangle: Sequence[float]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom in pixels; a rectangle that is too wide or too high is cut off at the image."""
    (width, height), (area, ratio, top, left) = size, rectangle
    wide = min(width, math.sqrt(area * width * height * ratio))
    high = min(height, math.sqrt(area * width * height / ratio))
    x, y = left * (width - wide), top * (height - high)
    return x, y, x + wide, y + high


def read(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): put it back or prepare the dataset again"
        ) from error
