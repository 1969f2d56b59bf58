"""A user's own network and diffusers' as backbones: what they must do, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from torch import Tensor, nn

from conditions import label, labelled
from diffsweep.backbones.diffusers_unet import DiffusersUNet
from diffsweep.backbones.own_network import OwnNetwork
from diffsweep.diffusion.condition import Condition
from diffsweep.runs import stages
from diffsweep.sweep.store.record import Run
from tiny import TINY

CONF = Path(__file__).parent.parent / "conf"


class Net(nn.Module):
    """A network of somebody's."""

    def __init__(self, width: int = 8, wanted: int = 2) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(4, width), nn.Linear(width, wanted)

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> Tensor:
        told = torch.zeros_like(logsnr) if condition is None else condition["label"].value.to(logsnr)
        seen = torch.cat([x, logsnr.clamp(-9, 9)[:, None], told[:, None]], 1)
        return self.outer(self.inner(seen).relu())


class Silent(nn.Module):
    """A network that gives something else."""

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | None = None) -> tuple[Tensor]:
        return (x,)


def test_a_network_of_the_users_is_called_as_it_says() -> None:
    torch.manual_seed(0)
    own = Net()
    model = OwnNetwork((2,), own)
    labels = Condition.of(label=torch.arange(5) % 4)
    model.check_condition(labels.take(slice(2)))
    x, logsnr = torch.randn(5, 2), torch.linspace(-3, 3, 5)
    assert torch.equal(model(x, logsnr, labels), own(x, logsnr, labels))
    assert own.training


@pytest.mark.parametrize(
    ("network", "settings", "words"),
    [
        (None, {}, "network=null is no torch.nn.Module: set its _target_ to yours; a network must have"),
        (nn.Identity(), {}, "Identity cannot be called as a backbone (TypeError: "),
        (Net(wanted=3), {}, "Net answered with shape (2, 3) for two examples: a network must have forward(x, logsnr"),
        (Net(), {"outputs": 2}, "Net answered with shape (2, 2) for two examples"),
        (Net(), {"inputs": 2}, "Net cannot be called as a backbone (RuntimeError: "),
        (Silent(), {}, "Silent answered with a tuple for two examples"),
    ],
)
def test_what_it_lacks_is_said_in_a_line(network: nn.Module | None, settings: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=r"a network must have forward\(x, logsnr, condition\): x \(N, ") as refusal:
        OwnNetwork((2,), network, **settings).check_condition(None)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("direct", [False, True])
def test_it_is_trained_and_sampled_with_or_without_our_settings(tmp_path: Path, direct: bool) -> None:
    words = [word for word in TINY if not word.startswith("backbone.")]
    words += ["training.steps=3", "trainer.progress=false", f"paths.runs={tmp_path}"]
    words[words.index("backbone=mlp")] = "backbone=module"
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", [*words, f"backbone.network={{_target_: {__name__}.Net, width: 5}}"])
    if direct:
        # A YAML of the user's own has the keys of its network, and no others.
        with open_dict(cfg):
            cfg.backbone = {"_target_": f"{__name__}.Net", "width": 5}
    result = stages.complete(cfg, Run.of(cfg), [])
    assert result is not None
    assert result.parameters == 4 * 5 + 5 + 5 * 2 + 2
    assert result.call_flops == 2 * (4 * 5 + 5 * 2)


def test_the_network_of_diffusers_hears_level_and_label() -> None:
    torch.manual_seed(0)
    model = labelled(DiffusersUNet((1, 8, 8), channels=(8, 16), groups=4, head=8), 3)
    x = torch.randn(2, 1, 8, 8)
    assert not model(x, torch.tensor([-torch.inf, torch.inf])).any()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    first = model(x, torch.zeros(2), label(0, 1))
    assert first.shape == x.shape
    assert (first - model(x, torch.ones(2), label(0, 1))).abs().max() > 1e-4
    assert (first - model(x, torch.zeros(2), label(2, 1))).abs().max() > 1e-4
    assert torch.equal(model(x, torch.zeros(2)), model(x, torch.zeros(2), label(0, 0).absent()))
    first.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in model.parameters())
    twice = DiffusersUNet((1, 8, 8), channels=(8, 16), groups=4, head=8, inputs=2, outputs=2)
    assert twice(torch.randn(2, 2, 8, 8), torch.zeros(2)).shape == (2, 2, 8, 8)
