"""ControlNet: a finished model, its weights untouched, is told more by a trained copy of its encoder."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import checkpoints_made
import forked_runs
from diffsweep import commands
from diffsweep.backbones import DiT, UNet
from diffsweep.conditioners import ControlNet, Edges, Label
from diffsweep.conditioners.conditioned import Conditioned
from diffsweep.conditioners.picture_map import correlation, edges
from diffsweep.data.examples import Examples
from diffsweep.diffusion import Condition
from diffsweep.diffusion.condition import Entry
from diffsweep.diffusion.schedules import linear_betas
from diffsweep.diffusion.target import Eps
from diffsweep.interop.denoising_network import DenoisingNetwork
from diffsweep.interop.diffusers_network import DiffusersNetwork
from diffsweep.interop.levels import Timestep
from diffsweep.sweep.store.record import Fit, read_metrics
from prerequisites import need_module

ROOT = Path(__file__).parent.parent
SMALL = [
    "dataset=digits",
    "training.steps=4",
    "training.warmup=0",
    "training.batch_size=16",
    "evaluation.samples=24",
    "sampler.nfe=3",
    "trainer.progress=false",
]
NETWORKS = {
    "unet": ["backbone=unet", "backbone.width=8"],
    "dit": ["backbone=dit_tiny", "backbone.width=16", "backbone.heads=2", "backbone.depth=3"],
}


def train(folder: Path, *words: str) -> tuple[int, str, str]:
    arguments = [str(ROOT / "train.py"), *SMALL, *words]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    return done.returncode, done.stdout, done.stderr


def records(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in folder.glob("runs/fits/*/cells/*/result.json")]
    return sorted(found, key=lambda one: one["created"])


def networks() -> dict[str, nn.Module]:
    return {
        "unet": UNet((1, 8, 8), width=8, multipliers=(1, 2)),
        "dit": DiT((1, 8, 8), width=16, depth=3, heads=2),
        "dit with skips": DiT((1, 8, 8), width=16, depth=4, heads=2, skips=True),
    }


def example() -> tuple[Tensor, Tensor, Condition]:
    picture = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    entries = {"edges": Edges((1, 8, 8)).read(Examples(picture)), "label": Label(10).read(Examples(picture))}
    return torch.randn(3, 1, 8, 8), torch.tensor([-1.0, 0.5, 3.0]), Condition(entries)


@pytest.mark.parametrize("name", networks())
def test_before_its_first_step_it_is_the_frozen_network_and_then_only_the_copy_learns(name: str) -> None:
    torch.manual_seed(0)
    told = Conditioned(networks()[name], {"label": Label(10)})
    with torch.no_grad():
        for weight in told.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    told.eval()
    x, logsnr, condition = example()
    before = told(x, logsnr, condition.absent(["edges"]))
    frozen = {name: value.clone() for name, value in told.state_dict().items()}
    steered = ControlNet(told, {"label": Label(10), "edges": Edges((1, 8, 8))})
    assert torch.equal(steered(x, logsnr, condition), before)
    assert not any(weight.requires_grad for weight in steered.frozen.parameters())
    optimizer = torch.optim.Adam(steered.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        steered(x, logsnr, condition).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(value, frozen[name]) for name, value in steered.frozen.state_dict().items())
    with torch.no_grad():
        after = steered(x, logsnr, condition)
        assert not torch.allclose(after, before, atol=1e-3)
        # What it is told matters, and each example is told its own.
        assert not torch.allclose(steered(x, logsnr, condition.absent(["edges"])), after, atol=1e-4)
        torch.testing.assert_close(steered(x[1:2], logsnr[1:2], condition.take(slice(1, 2))), after[1:2])


FOREIGN: dict[str, tuple[str, dict[str, Any]]] = {
    "UNet2DModel": ("UNet2DModel", {"num_class_embeds": 11}),
    "UNet2DConditionModel": (
        "UNet2DConditionModel",
        {
            "num_class_embeds": 11,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 6,
        },
    ),
    "DiTTransformer2DModel": ("DiTTransformer2DModel", {"num_layers": 3}),
}


def foreign(name: str) -> DenoisingNetwork:
    """A network of diffusers as it is imported, of random weights; the one that attends to a text is told one."""
    kind, changes = FOREIGN[name]
    made = checkpoints_made.network(kind, **changes)
    config = {key: value for key, value in made.config.items() if not key.startswith("_")}
    network = DiffusersNetwork(kind, config)
    network.model.load_state_dict(made.state_dict())
    shape = (4, 6) if network.text else ()
    levels = Timestep(count=1000, whole=False)
    return DenoisingNetwork(
        network, Eps(), levels, linear_betas(), classes=10, network_classes=network.classes, text_shape=shape
    )


@pytest.mark.parametrize("name", FOREIGN)
def test_an_imported_network_is_steered_by_a_copy_of_its_encoder(name: str) -> None:
    need_module("diffusers")
    torch.manual_seed(0)
    network = foreign(name)
    x, logsnr, condition = example()
    if network.told_text:
        text = Entry(torch.randn(3, 4, 6), torch.ones(3, dtype=torch.bool))
        condition = Condition({**condition.entries, "text": text})
    before = network.eval()(x, logsnr, condition)
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    steered = ControlNet(network, {"label": Label(10), "edges": Edges((1, 8, 8))})
    # In training too: nothing is left out at random.
    assert torch.equal(steered.train()(x, logsnr, condition), before)
    # The copy has the encoder's weights and no others.
    copied = steered.control.state_dict()
    shared = {f"backbone.encoder.network.{key}": value for key, value in weights.items()}
    same = [key for key in copied if key in shared]
    assert all(copied[key].equal(shared[key]) for key in same)
    assert 0.2 * len(weights) < len(same) < len(weights)
    assert not any(part in key for key in copied for part in ("up_blocks", "conv_norm_out", "proj_out_"))
    optimizer = torch.optim.Adam([one for one in steered.parameters() if one.requires_grad], lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        steered(x, logsnr, condition).square().mean().backward()
        optimizer.step()
    # All that is trained takes part.
    assert all(one.grad is not None for one in steered.parameters() if one.requires_grad)
    assert all(torch.equal(value, weights[key]) for key, value in steered.frozen.state_dict().items())
    with torch.no_grad():
        after = steered(x, logsnr, condition)
        assert not torch.allclose(after, before, atol=1e-4)
        assert not torch.allclose(steered(x, logsnr, condition.absent(["edges"])), after, atol=1e-5)
        torch.testing.assert_close(steered(x[1:2], logsnr[1:2], condition.take(slice(1, 2))), after[1:2])


def test_the_copy_starts_with_the_weights_of_the_frozen_network_and_has_no_decoder() -> None:
    told = Conditioned(networks()["unet"], {"label": Label(10)})
    steered = ControlNet(told, {"label": Label(10), "edges": Edges((1, 8, 8))})
    theirs = told.state_dict()
    own = steered.control.state_dict()
    shared = {name.replace("backbone.", "backbone.encoder."): value for name, value in theirs.items()}
    assert own["conditioners.label.table.weight"].equal(theirs["conditioners.label.table.weight"])
    same = [name for name in shared if name in own]
    assert all(own[name].equal(shared[name]) for name in same)
    assert len(same) > 20
    assert not any("decoder" in name or "leave" in name for name in own)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished model of each network that is told labels, by the name of the network."""
    folder = tmp_path_factory.mktemp("project")
    names = {}
    for name, words in NETWORKS.items():
        code, _, err = train(folder, *words, "condition=label")
        assert code == 0, err
        names[name] = records(folder)[-1]["fit"]
    (folder / "names.json").write_text(json.dumps(names))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_finished_training_is_steered_and_stays_as_it_is(
    project: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = json.loads((project / "names.json").read_text())[name]
    words = ["backbone=controlnet", f"backbone.frozen='{frozen}'", "condition=[label,edges]"]
    code, out, err = train(project, *words, "guidance=cfg")
    assert code == 0, err
    result = records(project)[-1]
    assert -1 <= result["agreement_edges"] < 1
    assert result["agreement_edges_low"] < result["agreement_edges"] < result["agreement_edges_high"]
    assert result["agreement_edges_floor"] == 1
    assert "agreement_edges" in out
    fit = Fit(project / "runs/fits" / result["fit"])
    theirs = load_file(project / "runs/fits" / frozen / "checkpoints/ema.safetensors")
    own = load_file(fit.checkpoints / "ema.safetensors")
    assert all(own[f"frozen.{key}"].equal(value) for key, value in theirs.items())
    assert any(value.abs().sum() > 0 for key, value in own.items() if key.startswith("silent."))
    # It is found again by whoever reads its weights: image i is image i.
    monkeypatch.chdir(project)
    assert commands.main(["sample", result["cell"], "-n", "2", "--out", f"samples/{name}", "--device", "cpu"]) == 0
    # And another sampler trains nothing.
    trained = len(list(project.glob("runs/fits/*")))
    code, _, err = train(project, *words, "sampler=ddim")
    assert code == 0, err
    assert len(list(project.glob("runs/fits/*"))) == trained


@pytest.mark.slow
def test_an_imported_model_is_steered_and_its_loss_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_module("diffusers")
    data = [word for word in SMALL if not word.startswith("training.")]
    arguments = [str(ROOT / "train.py"), f"pretrained={checkpoints_made.ddpm()}", *data]
    done = forked_runs.run(arguments, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    frozen = records(tmp_path)[-1]["fit"]
    words = ["backbone=controlnet", f"backbone.frozen='{frozen}'", "condition=edges"]
    steps = ["training.steps=150", "optimizer.lr=3e-3", "trainer.log_every=10"]
    # A schedule of one's own: the network's answer is x0, wherever it is asked.
    code, _, err = train(tmp_path, *words, *steps, "diffuser=x0", "schedule=linear")
    assert code == 0, err
    result = records(tmp_path)[-1]
    fit = Fit(tmp_path / "runs/fits" / result["fit"])
    theirs = load_file(tmp_path / "runs/fits" / frozen / "checkpoints/ema.safetensors")
    own = load_file(fit.checkpoints / "ema.safetensors")
    assert all(own[f"frozen.{key}"].equal(value) for key, value in theirs.items())
    losses = [row["loss"] for row in read_metrics(fit.metrics_file)]
    assert losses[-1] < 0.7 * losses[0]
    monkeypatch.chdir(tmp_path)
    assert commands.main(["sample", result["cell"], "-n", "2", "--out", "drawn", "--device", "cpu"]) == 0
    for more, line in (
        (["diffuser=v"], "was imported, and answers with x0: choose diffuser=x0"),
        (["diffuser=x0", "schedule=rectified"], "which says nothing of x0 where the schedule starts"),
    ):
        code, _, err = train(tmp_path, *words, *more)
        assert code == 2, (more, err)
        assert line in err.strip().splitlines()[-1], (more, err)


@pytest.mark.slow
def test_refusals_are_one_line(project: Path) -> None:
    names = json.loads((project / "names.json").read_text())
    frozen = f"backbone.frozen='{names['unet']}'"
    for words, line in (
        (["condition=edges"], "backbone.frozen=null must name a finished training"),
        (["condition=edges", "backbone.frozen=abc"], "has no finished fit 'abc': choose one of"),
        (["condition=label", frozen], "has nothing to tell its frozen model: choose a condition beside label"),
        (["condition=edges", frozen, "diffuser=x0"], "was trained with another diffuser"),
        (["condition=edges", frozen, "schedule=linear"], "was trained with another schedule"),
        (["condition=edges", frozen, "dataset=fashion_mnist"], "was trained with another dataset"),
    ):
        code, _, err = train(project, "backbone=controlnet", *words)
        assert code == 2, (words, err)
        assert line in err.strip().splitlines()[-1], (words, err)
        assert "Traceback" not in err


@pytest.mark.slow
def test_conditions_are_swept_over_one_frozen_model(project: Path) -> None:
    frozen = json.loads((project / "names.json").read_text())["unet"]
    words = [
        "-m",
        "backbone=controlnet",
        f"backbone.frozen='{frozen}'",
        "condition=edges,superres",
        "sampler=ddim,heun",
    ]
    code, out, err = train(project, *words, "condition.superres.factor=2", "mode=plan")
    assert code == 0, err
    assert out.count("  train ") == 2
    assert "evaluation: 4 to do" in out


def test_thin_edges_are_those_of_scikit_image() -> None:
    feature = need_module("skimage.feature")
    torch.manual_seed(0)
    picture = torch.randint(0, 256, (3, 3, 20, 16), dtype=torch.uint8)
    found = Edges((3, 20, 16), detector="canny", sigma=1.5).read(Examples(picture)).value
    assert found.shape == (3, 1, 20, 16)
    for one, pixels in zip(found, picture.float() / 255, strict=True):
        assert torch.equal(one[0].bool(), torch.from_numpy(feature.canny(pixels.mean(0).numpy(), 1.5)))
    assert found.unique().tolist() == [0, 1]
    with pytest.raises(ValueError, match="detector=cany is unknown: did you mean canny"):
        Edges((3, 20, 16), detector="cany")  # type: ignore[arg-type]


def test_agreement_is_a_correlation() -> None:
    torch.manual_seed(0)
    a, b = torch.rand(5, 1, 6, 6), torch.rand(5, 1, 6, 6)
    expected = [float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1]) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(correlation(a, b), torch.tensor(expected))
    assert correlation(a, 2 * a + 1).tolist() == pytest.approx([1] * 5)
    flat = torch.zeros(5, 1, 6, 6)
    assert correlation(flat, flat).tolist() == [1] * 5
    assert correlation(flat, a).tolist() == [0] * 5
    picture = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    one = Edges((1, 8, 8))
    assert one.agreement(one.read(Examples(picture)), picture).tolist() == [1] * 4
    entry = one.read(Examples(picture.flip(0)))
    assert one.agreement(entry, picture).max() < 0.9
    torch.testing.assert_close(entry.value, edges(picture.flip(0) / 255))
