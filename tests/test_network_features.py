"""Any network as an extractor: of torchvision or timm by name, or of the user's own, from files of the user's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms.v2 import functional as transforms

import forked_runs
from diffsweep.evaluation.network_features import own_network, timm_network, torchvision_network
from test_custom import environment

ROOT = Path(__file__).parent.parent
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def resnet() -> Any:
    torch.manual_seed(0)
    return models.resnet18(weights=None, num_classes=1000).eval()


@pytest.fixture(scope="module")
def saved(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(resnet.state_dict(), path)
    return path


def pictures(size: int = 20, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, channels, size, size), dtype=torch.uint8, generator=draw)


def seen(x: Tensor, size: int) -> Tensor:
    resized = transforms.resize(x.float(), [size, size], antialias=True)
    return transforms.normalize(resized.clamp(0, 255) / 255, MEAN, STD)


@torch.inference_mode()
def test_a_network_of_torchvision_gives_what_its_last_layer_is_given(resnet: Any, saved: Path, tmp_path: Path) -> None:
    ours = torchvision_network("resnet18", str(saved), sha256(saved), size=64)
    assert (ours.space, ours.dimension, ours.called("fd")) == ("resnet18", 512, "fd_resnet18")
    shown = seen(pictures(), 64)
    body = nn.Sequential(*list(resnet.children())[:-1])
    found = ours(pictures())
    assert torch.allclose(found["features"], body(shown).flatten(1), atol=1e-5)
    assert torch.allclose(found["logits"], resnet(shown), atol=1e-5)
    # As training scripts save them, and other weights or another preprocessing are another digest.
    torch.save({"state_dict": resnet.state_dict(), "epoch": 3}, tmp_path / "again.pth")
    again = torchvision_network("resnet18", str(tmp_path / "again.pth"), sha256(tmp_path / "again.pth"), size=64)
    assert torch.equal(again(pictures())["features"], found["features"])
    others = [{"size": 96}, {"mean": [0.5] * 3}, {"std": [0.5] * 3}, {"interpolation": "bicubic"}]
    digests = {torchvision_network("resnet18", str(saved), sha256(saved), **one).digest for one in others}  # pyright: ignore[reportArgumentType]
    assert len({ours.digest, again.digest, *digests}) == 6


@torch.inference_mode()
def test_a_network_of_timm_gives_its_pooled_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body: Any = timm.create_model("resnet18", pretrained=False).eval()
    save_file(body.state_dict(), tmp_path / "timm.safetensors")
    ours = timm_network("resnet18.a1_in1k", str(tmp_path / "timm.safetensors"), sha256(tmp_path / "timm.safetensors"))
    shown = seen(pictures(224), 224)
    assert (ours.space, ours.dimension) == ("resnet18", 512)
    assert torch.allclose(ours(pictures(224))["features"], body.global_pool(body.forward_features(shown)), atol=1e-5)


class Sides(nn.Module):
    """Means of quarters of a picture; nothing is learned."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


class Random(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 5, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"features": self.layer(x).mean(dim=(2, 3))}


@torch.inference_mode()
def test_an_own_network_needs_no_weights_and_is_the_same_in_every_process() -> None:
    sides = own_network(Sides, "sides", mean=[0.0], std=[1.0])
    grey = pictures(8, 1)
    assert torch.allclose(sides(grey)["features"], Sides()(grey.float() / 255))
    first, second = (own_network(Random, "random", mean=[0.5], std=[0.5]) for _ in range(2))
    assert (first.digest, first.dimension) == (second.digest, 5)
    assert torch.equal(first(grey)["features"], second(grey)["features"])
    assert sides.digest != first.digest


def broken(tmp_path: Path, name: str, content: bytes) -> dict[str, Any]:
    (tmp_path / name).write_bytes(content)
    return {"weights": str(tmp_path / name), "sha256": sha256(tmp_path / name)}


def pickled(tmp_path: Path) -> dict[str, Any]:
    torch.save(Sides(), tmp_path / "whole.pth")
    return {"weights": str(tmp_path / "whole.pth"), "sha256": sha256(tmp_path / "whole.pth")}


MISTAKES: Sequence[tuple[Callable[[Path, Path], Any], str]] = [
    (
        lambda saved, tmp: torchvision_network("resnet81", None, None),
        "model=resnet81 is no network of torchvision: d",
    ),
    (lambda saved, tmp: timm_network("convnext_tinny", None, None), "model=convnext_tinny is no network of timm: did"),
    (lambda saved, tmp: torchvision_network("resnet18", None, None), "weights=null names no file: give the path of"),
    (lambda saved, tmp: torchvision_network("resnet18", "no.pth", None), "weights=no.pth is not a file"),
    (lambda saved, tmp: torchvision_network("resnet18", str(saved), None), "sha256=null does not say which weights"),
    (
        lambda saved, tmp: torchvision_network("resnet18", str(saved), "0" * 64),
        "is not the weights of resnet18: its",
    ),
    (lambda saved, tmp: torchvision_network("resnet50", str(saved), sha256(saved)), "holds no weights of resnet50"),
    (lambda saved, tmp: torchvision_network("resnet18", **pickled(tmp)), "could run any code: save its state_dict"),
    (lambda saved, tmp: torchvision_network("resnet18", **broken(tmp, "a.safetensors", b"x")), "is no file of weights"),
    (lambda saved, tmp: torchvision_network("resnet18", **broken(tmp, "a.pth", b"x")), "could run any code|no file of"),
    (lambda saved, tmp: own_network(Sides, "inception"), "space=inception is that of the original Inception"),
    (lambda saved, tmp: own_network(Sides, "My Net"), "space=My Net must be a name of small letters"),
    (lambda saved, tmp: own_network(Sides, "sides", mean=[0.5, 0.5]), r"mean=\[0.5, 0.5\] must have 1 or 3 numbers"),
    (lambda saved, tmp: own_network(Sides, "sides", std=[0.0] * 3), "must have 3 numbers above 0"),
    (lambda saved, tmp: own_network(Sides, "sides", interpolation="area"), "interpolation=area is unknown"),
    (lambda saved, tmp: own_network(nn.Flatten, "flat"), "size=null must be given: features of flat depend on how"),
    (lambda saved, tmp: own_network(nn.Identity, "flat", size=64), r"gave features \(2, 3, 64, 64\) of 2 pictures"),
    (lambda saved, tmp: own_network(lambda: nn.Linear(3, 3), "flat", size=8), "size=8 does not fit flat"),
    (lambda saved, tmp: own_network(cast(Any, dict), "flat"), "network gave a dict: it must make a torch.nn.Module"),
]


@pytest.mark.parametrize(("make", "said"), MISTAKES, ids=[said for _, said in MISTAKES])
def test_what_cannot_be_is_refused_in_one_line(
    make: Callable[[Path, Path], Any], said: str, saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        make(saved, tmp_path)
    assert "\n" not in str(raised.value)


def test_own_features_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import torch\n\n\nclass Quarters(torch.nn.Module):\n    def forward(self, x):\n"
        "        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)\n"
    )
    words = ["trainer=debug", "training.steps=2", "training.warmup=0", "backbone.width=8", "extractor=module"]
    words += ["evaluation.extractor.network._target_=mine.Quarters", "evaluation.extractor.space=quarters"]
    done = forked_runs.run([str(ROOT / "train.py"), *words], tmp_path, environment(), 300)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("runs/fits/*/cells/*/result.json")
    result = json.loads(path.read_text())
    assert (result["metric"], result["extractor"]) == ("fd_quarters", "quarters")
