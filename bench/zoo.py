"""Which networks EDropout can search exactly: a network or two of each family of timm, and torchvision's.

Half the units of each network are dropped at random, in float64. The masked network, by its own code, is what the
others are compared with: outputs of the pruned network in eval mode, outputs and gradients of the search in train mode.
Torch-Pruning stands beside it with its defaults, half the channels of every layer but the last one, and once more with
the numbers of heads where a module tells one. Each network has processes of its own, with limits of time and memory;
its row is written as it ends, and a later run goes on with the rows that are missing.

python -m bench.zoo                          all of them, to docs/results/zoo.csv
python -m bench.zoo resnet18 levit_128s --out /tmp/zoo.csv
python -m bench.zoo 'torchvision/*' --again  rows that are there are measured anew
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import multiprocessing
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from bench import zoo_network

RESULTS = ("exact", "refused", "wrong", "ran")
NAMES = Path(__file__).with_suffix(".txt")
COLUMNS = {
    "ours": ("parameters", "side", "result", "error", "kept", "seconds", "sentence"),
    "peers": ("peer", "peer_kept", "peer_with_heads", "peer_with_heads_kept"),
}


def limited(work: Callable[..., Any], *arguments: Any, seconds: int, memory: int, **options: Any) -> Any:
    """What `work` returns in a process of its own; a string that says why, where it returns nothing.

    Args:
        work: Called with the other arguments.
        arguments: For it.
        seconds: Of processor time, after which it is stopped.
        memory: GiB that it may address.
        options: For it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([zoo_network.__name__])
    there, here = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(here, seconds, memory, work, arguments, options))
    process.start()
    here.close()
    try:
        return there.recv()
    except EOFError:
        process.join()
        stopped = process.exitcode == -signal.SIGXCPU
        return f"more than {seconds} s" if stopped else f"ended without a word, exit code {process.exitcode}"
    finally:
        process.join()


def _send(connection: Connection, seconds: int, memory: int, work: Callable, arguments: tuple, options: dict) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory << 30, memory << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 9))  # at the second limit it would be killed unheard
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connection.send(work(*arguments, **options))
    except Exception as error:  # whatever a foreign network or library raises is its row
        connection.send(f"{type(error).__name__}: {error}")


def ours(name: str, **limits: int) -> dict[str, str]:
    """The columns of EDropout."""
    found = limited(zoo_network.examined, name, **limits)
    row = {"result": "failed", "sentence": found} if isinstance(found, str) else found
    return {key: _text(row.get(key, "")) for key in COLUMNS["ours"]}


def peers(name: str, **limits: int) -> dict[str, str]:
    """The columns of Torch-Pruning."""
    row = {}
    for column in ("peer", "peer_with_heads"):
        left = limited(zoo_network.peer, name, heads=column == "peer_with_heads", **limits)
        row |= (
            {column: left, f"{column}_kept": ""} if isinstance(left, str) else {column: "ran", f"{column}_kept": left}
        )
    return {key: _text(value) for key, value in row.items()}


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else " ".join(str(value).split())[:300]


def _read(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as file:
        return {row["network"]: row for row in csv.DictReader(file)}


def _write(path: Path, rows: dict[str, dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["network", *COLUMNS["ours"], *COLUMNS["peers"]], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="patterns of names; any name of timm or torchvision/")
    parser.add_argument("--out", type=Path, default=Path("docs/results/zoo.csv"))
    parser.add_argument("--only", choices=list(COLUMNS), help="the columns of EDropout or of Torch-Pruning")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--seconds", type=int, default=120, help="of processor time, limit of each process")
    parser.add_argument("--memory", type=int, default=16, help="GiB that each process may address")
    options = parser.parse_args()
    known, limits = NAMES.read_text(encoding="utf-8").split(), {"seconds": options.seconds, "memory": options.memory}
    asked = [name for pattern in options.names for name in fnmatch.filter(known, pattern) or [pattern]]
    rows, parts = _read(options.out), {"ours": ours, "peers": peers}
    for name in dict.fromkeys(asked):
        for part in COLUMNS if options.only is None else [options.only]:
            row = rows.setdefault(name, {"network": name})
            if options.again or not row.get("result" if part == "ours" else "peer"):
                row |= parts[part](name, **limits)
                _write(options.out, rows)
                print(f"{name:36}", *(f"{row[column]:8}" for column in COLUMNS[part]), flush=True)
    shown = [rows[name] for name in dict.fromkeys(asked)]
    for column in ("result", "peer", "peer_with_heads"):
        counts = Counter(row.get(column) or "not measured" for row in shown)
        told = ", ".join(f"{counts[result]} {result}" for result in RESULTS if result in counts)
        print(f"{column}: {told}, {len(shown) - sum(counts[result] for result in RESULTS)} did not run")


if __name__ == "__main__":
    main()
