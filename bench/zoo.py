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

NAMES = Path(__file__).with_suffix(".txt")
COLUMNS = (
    *("network", "parameters", "side", "result", "error", "kept", "seconds", "sentence"),
    *("peer", "peer_kept", "peer_with_heads", "peer_with_heads_kept"),
)


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
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            connection.send(work(*arguments, **options))
    except Exception as error:  # whatever a foreign network or library raises is its row
        connection.send(f"{type(error).__name__}: {error}")


def row_of(name: str, *, seconds: int, memory: int, peers: bool) -> dict[str, Any]:
    """A row of the table."""
    limits = {"seconds": seconds, "memory": memory}
    found = limited(zoo_network.examined, name, **limits)
    row = {"network": name, **({"result": "failed", "sentence": found} if isinstance(found, str) else found)}
    for column in ("peer", "peer_with_heads") if peers else ():
        left = limited(zoo_network.peer, name, heads=column == "peer_with_heads", **limits)
        row |= {column: left} if isinstance(left, str) else {column: "ran", f"{column}_kept": left}
    return {key: _text(row.get(key, "")) for key in COLUMNS}


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else " ".join(str(value).split())[:300]


def _write(path: Path, rows: dict[str, dict[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="patterns of names; any name of timm or torchvision/")
    parser.add_argument("--out", type=Path, default=Path("docs/results/zoo.csv"))
    parser.add_argument("--again", action="store_true", help="measure rows anew that are there")
    parser.add_argument("--seconds", type=int, default=120, help="of processor time, limit of each process")
    parser.add_argument("--memory", type=int, default=16, help="GiB that each process may address")
    parser.add_argument("--no-peers", action="store_true", help="leave Torch-Pruning out")
    options = parser.parse_args()
    known = NAMES.read_text(encoding="utf-8").split()
    asked = [name for pattern in options.names for name in fnmatch.filter(known, pattern) or [pattern]]
    rows: dict[str, dict[str, str]] = {}
    if options.out.exists():
        with options.out.open(encoding="utf-8") as file:
            rows = {row["network"]: row for row in csv.DictReader(file)}
    for name in dict.fromkeys(asked):
        if name not in rows or options.again:
            limits = {"seconds": options.seconds, "memory": options.memory}
            rows[name] = row_of(name, peers=not options.no_peers, **limits)
            _write(options.out, rows)
            print(" ".join(f"{rows[name][column]:10}" for column in COLUMNS[:8]), flush=True)
    shown = [rows[name] for name in dict.fromkeys(asked)]
    counts = Counter(row["result"] for row in shown)
    print(f"{len(shown)} networks:", ", ".join(f"{count} {result}" for result, count in counts.items()))
    for column in ("peer", "peer_with_heads"):
        print(f"Torch-Pruning, {column}: {sum(row[column] == 'ran' for row in shown)} ran")


if __name__ == "__main__":
    main()
