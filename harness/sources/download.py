"""Published archives: found below the raw data's root or downloaded, and never used unless their checksum is right."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from harness.data.prepared import DataError
from harness.machine.files import advice, replacing, sweep

TIMEOUT_SECONDS = 60
BLOCK = 1 << 20
NETWORK_ERRORS = (
    urllib.error.URLError,
    http.client.HTTPException,
    TimeoutError,
    ConnectionError,
    ssl.SSLError,
)


@dataclass(frozen=True)
class Archive:
    """A file as its publisher offers it.

    Attributes:
        filename: Its name.
        md5: The published checksum.
        urls: Where it can be had, best first.
    """

    filename: str
    md5: str
    urls: tuple[str, ...]


def fetch(
    archives: list[Archive], folder: Path, *, download: bool, attempts: int = 3, pause_seconds: float = 2.0
) -> list[Path]:
    """Have every archive lie in `folder` with its published checksum.

    Args:
        archives: The files.
        folder: Where they lie or are put.
        download: Fetch those that are missing.
        attempts: How often each address is tried.
        pause_seconds: Before the second attempt; doubled before each further one.

    Returns:
        Their paths.

    Raises:
        DataError: a file is missing and cannot be had, or is not what was published.
    """
    missing = []
    for archive in archives:
        path = folder / archive.filename
        sweep(path)
        if path.exists():
            check(archive, path)
        elif not (download and _download(archive, path, attempts, pause_seconds)):
            missing.append(archive)
    if missing:
        files = ", ".join(f"{archive.filename} (md5 {archive.md5}, {archive.urls[0]})" for archive in missing)
        why = "could not be downloaded" if download else "are missing and downloading is off"
        raise DataError(f"files {why}; put them into {folder}: {files}")
    return [folder / archive.filename for archive in archives]


def check(archive: Archive, path: Path) -> None:
    """Raise DataError if the file at `path` is not the published one."""
    if (found := md5(path)) != archive.md5:
        raise DataError(f"{path} is not the published file (md5 {found}, published {archive.md5}): delete it")


def unpack(path: Path) -> bytes:
    """The content of a file, gzipped if its name ends in .gz.

    Raises:
        DataError: it is truncated or damaged.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as handle:
            return handle.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is truncated or damaged ({error}): delete it and start again") from error


def md5(path: Path) -> str:
    """MD5 of a file: what publishers of datasets give; enough against damage."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "md5").hexdigest()


def _download(archive: Archive, path: Path, attempts: int, pause_seconds: float) -> bool:
    for attempt in range(attempts):
        for url in archive.urls:
            try:
                _copy(url, archive, path)
            except NETWORK_ERRORS as error:
                print(f"{url}: {error}", flush=True)
            except OSError as error:
                raise DataError(f"{path} cannot be written ({error}): {advice(error)}") from error
            else:
                return True
        if attempt + 1 < attempts:
            time.sleep(pause_seconds * 2**attempt)
    return False


def _copy(url: str, archive: Archive, path: Path) -> None:
    """Copy the file at `url` to `path`, which appears only once it is whole."""
    request = urllib.request.Request(url, headers={"User-Agent": "edropout-benchmark"})
    with replacing(path) as temporary, urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
        total, received, promised = hashlib.md5(usedforsecurity=False), 0, answer.headers.get("Content-Length")
        with open(temporary, "wb") as handle:
            while block := answer.read(BLOCK):
                handle.write(block)
                total.update(block)
                received += len(block)
        if promised is not None and received < int(promised):
            raise urllib.error.URLError(f"the connection was cut after {received} of {promised} bytes")
        if total.hexdigest() != archive.md5:
            # A proxy's error page ends here.
            raise urllib.error.URLError(f"the file that came has md5 {total.hexdigest()}, published is {archive.md5}")
