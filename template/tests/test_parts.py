"""Do the parts of this project keep the promises that diffsweep relies on? Run: python -m pytest"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffsweep.conditioners import Label
from diffsweep.conditioners.conditioned import Conditioned
from diffsweep.diffusion import Condition

PROJECT = Path(__file__).parent.parent
sys.path.insert(0, str(PROJECT))

from network import PlainMLP  # noqa: E402
from rings import Rings  # noqa: E402


def test_a_split_is_the_same_whenever_it_is_loaded() -> None:
    rings = Rings([0.7, 1.4], 0.05, 1000, [2], 0.784)
    first, again, test = rings.load("train"), rings.load("train"), rings.load("test")
    assert torch.equal(first.x, again.x)
    assert not torch.equal(first.x, test.x)
    assert first.x.square().mean().sqrt().item() == pytest.approx(1.107 / 2**0.5, rel=0.02)


def test_the_network_hears_its_label() -> None:
    network = Conditioned(PlainMLP([2], 16, 2), {"label": Label(classes=2)})
    x, logsnr = torch.randn(4, 2), torch.zeros(4)
    assert network(x, logsnr).shape == x.shape
    first, second = (Condition.of(label=torch.full((4,), label)) for label in (0, 1))
    assert not torch.equal(network(x, logsnr, first), network(x, logsnr, second))


def test_everything_works_together(tmp_path: Path) -> None:
    # The solver is measured against an exact solution before anything is trained.
    words = ["experiment=rings", "sampler=ralston", "trainer=debug", f"paths.runs={tmp_path}"]
    subprocess.run([sys.executable, "-m", "diffsweep", "train", *words], cwd=PROJECT, check=True)
    assert list(tmp_path.glob("fits/*/cells/*/result.json"))
