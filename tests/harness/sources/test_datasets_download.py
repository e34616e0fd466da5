"""Downloads over a real connection that is cut, brings something else, or cannot be made."""

import functools
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from raw_data import md5, write_idx
from torchvision import datasets

from harness.data import prepared
from harness.data.prepared import DataError
from harness.sources import download
from harness.sources.prepare import prepare

ROOT = Path(__file__).resolve().parents[3]


class Unreliable(http.server.SimpleHTTPRequestHandler):
    """Cuts the connection in the middle of the first answers."""

    failures = 1

    def copyfile(self, source, outputfile):
        content = source.read()
        if type(self).failures > 0:
            type(self).failures -= 1
            content = content[: len(content) // 2]
        outputfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    handler = type("Handler", (Unreliable,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=folder)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}/", handler
        running.shutdown()


def test_a_download_that_is_cut_is_tried_again(tmp_path, server, capsys):
    folder, address, _ = server
    (folder / "a.gz").write_bytes(bytes(range(256)) * 1000)
    archive = download.Archive("a.gz", md5(folder / "a.gz"), (f"{address}a.gz",))
    (tmp_path / "raw").mkdir()
    killed, running = (tmp_path / "raw" / f".a.gz.{number}.tmp" for number in (1, 2))
    killed.touch()
    os.utime(killed, (0, 0))
    running.touch()
    [path] = download.fetch([archive], tmp_path / "raw", download=True, pause_seconds=0)
    assert "the connection was cut after 128000 of 256000 bytes" in capsys.readouterr().out
    running.unlink()  # Another process may still be at it; what a killed one left is gone.
    assert path.read_bytes() == (folder / "a.gz").read_bytes()
    assert [entry.name for entry in (tmp_path / "raw").iterdir()] == ["a.gz"]


def test_a_download_that_fails_names_every_file_its_place_and_its_checksum(tmp_path, server):
    folder, address, handler = server
    handler.failures = 100
    (folder / "a.gz").write_bytes(bytes(1000))
    archives = [download.Archive(f"{name}.gz", f"md5-of-{name}", (f"{address}{name}.gz",)) for name in "ab"]
    with pytest.raises(DataError) as caught:
        download.fetch(archives, tmp_path / "raw", download=True, pause_seconds=0)
    for part in ("a.gz (md5 md5-of-a", "b.gz (md5 md5-of-b", str(tmp_path / "raw"), address):
        assert part in str(caught.value)
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_download_that_is_stopped_leaves_nothing(tmp_path):
    script = """
import sys
from torchvision import datasets
from harness.sources.prepare import main
datasets.FashionMNIST.mirrors = [sys.argv.pop()]
sys.exit(main())
"""
    arguments = ["--name", "fashion", "--data", '{"source": "fashion"}', "--root", tmp_path, "--out", tmp_path / "out"]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        command = [sys.executable, "-c", script, *map(str, arguments), "--download", address]
        silent.settimeout(60)
        with subprocess.Popen(command, cwd=ROOT) as process:
            connection, _ = silent.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + bytes(download.BLOCK + 1))
                folder = tmp_path / "FashionMNIST" / "raw"
                while process.poll() is None and not list(folder.glob(".*.tmp")):
                    time.sleep(0.01)
                process.terminate()
                assert process.wait(60) == 128 + signal.SIGTERM
    assert list(folder.iterdir()) == []


def test_what_comes_is_not_kept_if_it_is_not_what_was_published(tmp_path):
    (tmp_path / "error.html").write_text("a proxy's error page")
    archive = download.Archive("a.gz", "0" * 32, ((tmp_path / "error.html").as_uri(),))
    with pytest.raises(DataError, match="could not be downloaded"):
        download.fetch([archive], tmp_path / "raw", download=True, attempts=1)
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_dataset_is_downloaded_file_by_file(tmp_path, monkeypatch):
    folder = write_idx(tmp_path / "elsewhere", monkeypatch)
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{folder.as_uri()}/"])
    out = tmp_path / "out.safetensors"
    prepare("fashion", {"source": "fashion"}, root=tmp_path / "raw", out=out, download=True)
    assert len(prepared.read(out).tensors["train_y"]) == 90
    assert len(list((tmp_path / "raw" / "FashionMNIST" / "raw").iterdir())) == 4
