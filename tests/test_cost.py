"""Parameters and operations of a network: against closed forms and papers, recorded and shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor, nn

from conditions import label
from diffsweep.backbones import MLP, UNet
from diffsweep.conditioners import Label
from diffsweep.conditioners.conditioned import conditioned
from diffsweep.diffusion.condition import Condition
from diffsweep.runs import stages
from diffsweep.sweep.store.record import Run
from diffsweep.training.cost import call_flops
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"

# Linear layers of the tiny perceptron: two of the level, three of a block, the first and the last.
TINY_MLP = 2 * (16 * 16 + 16 * 16 + 16 * 32 + 16 * 16 + 16 * 16 + 14 * 16 + 16 * 2)


def option(name: str, shape: tuple[int, ...], **changes: object) -> nn.Module:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [f"backbone={name}"]).backbone
    with torch.device("meta"):
        return instantiate(cfg, shape=list(shape), **changes)


@pytest.mark.parametrize(
    ("name", "billions", "tolerance"),
    [("dit_s", 6.06, 0.001), ("dit_b", 23.01, 0.001), ("edm2_xs", 45.5, 0.02), ("edm2_s", 101.9, 0.02)],
)
def test_published_multiplications(name: str, billions: float, tolerance: float) -> None:
    """Of table 1 of arXiv 2212.09748 and table 2 of 2312.02696, which count a multiplication with its addition once."""
    shape = (4, 32, 32) if name.startswith("dit") else (4, 64, 64)
    outputs = 2 if name.startswith("dit") else 1
    network = conditioned(option(name, shape, outputs=outputs), {"label": Label(1000)})
    found = call_flops(network, shape, label(0))
    assert found == pytest.approx(2e9 * billions, rel=tolerance)


def test_layers_are_counted_and_the_network_is_left_alone() -> None:
    network = MLP((2,), width=16, depth=1)
    assert call_flops(network, (2,)) == TINY_MLP
    assert network.training
    assert {weight.device.type for weight in network.parameters()} == {"cpu"}
    unet = UNet((1, 8, 8), width=8, multipliers=[1], groups=4, attention=[])
    (whole, half) = (call_flops(unet, (1, 8, 8)), call_flops(unet.eval(), (1, 8, 8)))
    assert whole == half
    assert not unet.training


class ReadsNumbers(nn.Module):
    """A network that looks at its input, which tensors without numbers do not have."""

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        return x if x.sum().item() > 0 else -x


def test_a_network_that_needs_numbers_is_not_counted() -> None:
    assert call_flops(ReadsNumbers(), (2,)) is None


def test_a_run_tells_and_records_what_its_network_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*TINY, "training.steps=2", "trainer.progress=false", f"paths.runs={tmp_path}"])
    run = Run.of(cfg)
    result = stages.complete(cfg, run, [])
    assert result is not None
    count = sum(weight.numel() for weight in MLP((2,), width=16, depth=1).parameters())
    assert (result.parameters, result.call_flops) == (count, TINY_MLP)
    done = json.loads(run.fit.done_file.read_text())
    assert (done["parameters"], done["call_flops"]) == (count, TINY_MLP)
    assert f"a network of {count:,} parameters, 3.58e-06 GFLOP a call and example" in capsys.readouterr().err
