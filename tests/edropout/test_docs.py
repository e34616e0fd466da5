"""The blocks of the page about loops run as they stand, each on a small network, an optimiser and a search of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from searched_networks import batch, network

from edropout import EDropout

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loops.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"block {number}" for number in range(1, len(BLOCKS) + 1)])
def test_a_block_of_the_page_trains(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("accelerate", "lightning"):
        if f"import {package}" in block or f"from {package}" in block:
            pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    names = {"torch": torch, "EDropout": EDropout, "device": "cpu", "epochs": 1, "classes": 5, "model": model}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(32)), batch_size=8)
    names |= {"loader": loader, "optimizer": optimizer, "search": EDropout(model)}
    names["search"].loss(*batch()).backward()
    names["search"].step(optimizer)
    exec("from edropout.energy import soft_margin", names)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    exec(block, names)
    moved = any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert moved or "torch.save" in block or "tuner" in block


def test_the_page_has_blocks() -> None:
    assert len(BLOCKS) >= 13
