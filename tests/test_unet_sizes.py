"""The U-Nets for 28 to 512 pixels: shapes, weights, operations and memory, counted without numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import nn

from diffsweep.training.cost import activation_bytes, call_flops, parameters
from test_activation_checkpointing import PeakMemory

CONF = Path(__file__).parent.parent / "conf" / "backbone"

# Pixels, channels, millions of weights, GFLOP of a call for one image: as docs/networks.md tells.
SIZES = [(28, 1, 5.1, 1.6), (32, 3, 27.9, 8.4), (64, 3, 96.4, 58.5), (128, 3, 69.6, 91.3)]
SIZES += [(256, 3, 89.1, 138.3), (512, 3, 89.2, 141.0)]


def network(side: int, channels: int, **changes: Any) -> nn.Module:
    plain = yaml.safe_load((CONF / f"unet_{side}.yaml").read_text())
    return instantiate(plain | {"shape": [channels, side, side], **changes})


def on_meta(side: int, channels: int, **changes: Any) -> nn.Module:
    with torch.device("meta"):
        return network(side, channels, **changes)


def test_every_size_has_its_figures() -> None:
    assert {f"unet_{side}" for side, *_ in SIZES} == {path.stem for path in CONF.glob("unet_*.yaml")}


@pytest.mark.parametrize(("side", "channels", "millions", "gflop"), SIZES)
def test_a_size_has_the_shape_the_weights_and_the_operations_that_are_told(
    side: int, channels: int, millions: float, gflop: float
) -> None:
    model = on_meta(side, channels)
    x = torch.empty(2, channels, side, side, device="meta")
    assert model(x, torch.empty(2, device="meta")).shape == x.shape
    assert parameters(model) / 1e6 == pytest.approx(millions, abs=0.06)
    flops = call_flops(model, (channels, side, side))
    assert flops is not None
    assert flops / 1e9 == pytest.approx(gflop, abs=0.06)
    told = next(line for line in docs().splitlines() if line.startswith(f"| `unet_{side}` |"))
    memory = activation_bytes(lambda: model(x[:1], torch.empty(1, device="meta")), model.parameters()) / 2**20
    assert [cell.strip() for cell in told.split("|")[2:6]] == [f"{side}", f"{millions}", f"{gflop}", f"{memory:.0f}"]


def docs() -> str:
    return (CONF.parent.parent / "docs" / "networks.md").read_text()


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3)])
def test_the_estimate_of_memory_is_what_a_step_takes(side: int, channels: int) -> None:
    """Against all tensors that are there at once in a forward and a backward pass, which frees as it goes."""
    x, logsnr = torch.randn(8, channels, side, side), torch.zeros(8)
    model = network(side, channels)
    with PeakMemory() as memory:
        model(x, logsnr).square().mean().backward()
    shell = on_meta(side, channels)
    estimate = activation_bytes(lambda: shell(x.to("meta"), logsnr.to("meta")), shell.parameters())
    assert memory.peak == pytest.approx(estimate, rel=0.15)
