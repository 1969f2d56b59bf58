"""Text-to-image pipelines of diffusers: their network, language model and autoencoder are used as they are there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

import forked_runs
import pipelines_made
from diffsweep import commands
from diffsweep.interop.imported import Import
from diffsweep.random_streams import generator
from diffsweep.runs.build import Components
from diffsweep.runs.instantiate import make
from diffsweep.scoring.requests import Requests
from diffsweep.settings import SampleChoice
from diffsweep.sweep.plan.imported_options import with_imported_options
from prerequisites import need_module

ROOT = Path(__file__).parent.parent
PROMPTS = ["a red heart", "cat", "zebra on the moon"]
# Divides 1000: else the scheduler of diffusers does not end at clean data.
STEPS = 8


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    need_module("transformers")
    folder = tmp_path_factory.mktemp("pipeline") / "sd"
    return folder, pipelines_made.stable_diffusion(folder, request.param)


def composed(folder: Path, *words: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=with_imported_options([f"pretrained={folder}", *words]))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 pictures of 16 pixels."""
    folder = tmp_path_factory.mktemp("pictures") / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        pixels = generator.integers(0, 256, (4, 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def latents(count: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_latents_are_those_of_the_pipeline_from_the_same_noise(
    made: tuple[Path, Any], pictures: Path, tmp_path: Path
) -> None:
    folder, pipeline = made
    settings = [f"paths.runs={tmp_path}", "trainer.threads=null"]
    cfg = composed(folder, *words_of(folder, pictures)[1:], *settings)
    components = Components.of(cfg)
    fitting, model = components.fitting, components.scoring.model
    assert isinstance(fitting, Import)
    fitting.load()
    requests = Requests(model.conditioners, model.dataset, SampleChoice(prompts=PROMPTS, negative_prompt="noise"))
    sampler = components.scoring.sampler
    guided = components.scoring.guidance(fitting.denoiser.eval(), sampler.levels(model.schedule))
    noise = latents(3)
    theirs = pipeline(
        PROMPTS,
        negative_prompt=["noise"] * 3,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        latents=noise * model.schedule.level(1.0).sigma,
        output_type="latent",
    ).images
    mine = sampler(guided, noise, schedule=model.schedule, condition=requests(torch.arange(3)))
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-4
    # A text matters, and without a negative one it is compared with no words at all.
    assert not torch.allclose(theirs[0], theirs[2], atol=1e-2)
    free = Requests(model.conditioners, model.dataset, SampleChoice(prompts=PROMPTS))(torch.arange(3))
    theirs = pipeline(
        PROMPTS,
        guidance_scale=3.0,
        num_inference_steps=STEPS,
        latents=noise * model.schedule.level(1.0).sigma,
        output_type="latent",
    ).images
    mine = sampler(guided, noise, schedule=model.schedule, condition=free)
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-4


def by_command_line(folder: Path, pictures: Path, words: list[str], tmp_path: Path) -> Callable[..., torch.Tensor]:
    """What draws latents of a pipeline as a run of these words would: of noise and what is asked for."""
    given = [word for word in words_of(folder, pictures)[1:] if not word.startswith(("sampler=", "guidance"))]
    cfg = composed(folder, *given, *words, f"paths.runs={tmp_path}", "trainer.threads=null")
    components = Components.of(cfg)
    fitting, model = components.fitting, components.scoring.model
    assert isinstance(fitting, Import)
    fitting.load()
    sampler = components.scoring.sampler
    guided = components.scoring.guidance(fitting.denoiser.eval(), sampler.levels(model.schedule))

    def draw(noise: torch.Tensor, negative: str | None = None) -> torch.Tensor:
        requests = Requests(model.conditioners, model.dataset, SampleChoice(prompts=PROMPTS, negative_prompt=negative))
        with torch.no_grad():
            return sampler(guided, noise, schedule=model.schedule, condition=requests(torch.arange(len(noise))))

    return draw


def distance(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference, of the largest value."""
    return float((mine - theirs).abs().max() / theirs.abs().max())


@torch.no_grad()
def test_latents_of_several_language_models_are_those_of_the_pipeline(pictures: Path, tmp_path: Path) -> None:
    need_module("transformers")
    for kind in ("xl", "3", "3 without T5"):
        folder = tmp_path / kind
        words = ["sampler=ddim"]
        if kind == "xl":
            pipeline = pipelines_made.stable_diffusion_xl(folder)
        else:
            pipeline = pipelines_made.stable_diffusion_3(folder, t5=kind == "3")
            # Its scheduler shifts its last time twice, see test_interop_samplers.
            words = ["sampler=euler", "sampler/spacing=linspace", f"sampler.spacing.last={3 * 0.001 / (1 + 2 * 0.001)}"]
        draw = by_command_line(folder, pictures, [*words, "guidance=cfg", "guidance.scale=3"], tmp_path)
        noise = latents(3)
        for negative in (None, "noise"):
            theirs = pipeline(
                PROMPTS,
                negative_prompt=None if negative is None else [negative] * 3,
                guidance_scale=3.0,
                num_inference_steps=STEPS,
                latents=noise,
                output_type="latent",
            ).images
            assert distance(draw(noise, negative), theirs) < 1e-3, (kind, negative)
        assert not torch.allclose(theirs[0], theirs[2], atol=1e-2)


def flux_latents(pipeline: Any, noise: torch.Tensor, **settings: Any) -> torch.Tensor:
    """Latents of Flux's own pipeline, which has them in patches of 2 x 2."""
    n, channels, height, width = noise.shape
    packed = pipeline._pack_latents(noise, n, channels, height, width)
    side = pipeline.vae_scale_factor
    settings = {"height": height * side, "width": width * side, "output_type": "latent"} | settings
    theirs = pipeline(PROMPTS[:n], num_inference_steps=STEPS, latents=packed, **settings).images
    if settings["output_type"] != "latent":
        return torch.as_tensor(theirs)
    return pipeline._unpack_latents(theirs, height * side, width * side, side)


@torch.no_grad()
def test_latents_of_flux_are_those_of_its_pipeline(pictures: Path, tmp_path: Path) -> None:
    need_module("transformers")
    noise = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    dev, schnell = tmp_path / "dev", tmp_path / "schnell"
    pipeline = pipelines_made.flux(dev)
    found = {}
    for scale in (1.5, 6.0):
        theirs = flux_latents(pipeline, noise, guidance_scale=scale)
        # The scale is told to the network: guidance=distilled is chosen for such a folder.
        draw = by_command_line(dev, pictures, ["sampler=ddim", f"guidance.scale={scale}"], tmp_path)
        assert distance(draw(noise), theirs) < 1e-3, scale
        found[scale] = theirs
    assert not torch.allclose(found[1.5], found[6.0], atol=1e-2)
    assert not torch.allclose(found[1.5][0], found[1.5][2], atol=1e-2)
    # Larger pictures have more tokens, and another shift.
    larger = torch.randn(1, 16, 12, 12, generator=torch.Generator().manual_seed(3))
    draw = by_command_line(dev, pictures, ["sampler=ddim", "guidance.scale=1.5", "dataset.size=24"], tmp_path)
    assert distance(draw(larger), flux_latents(pipeline, larger, guidance_scale=1.5)) < 1e-3
    # Guidance by two calls beside it: the network is told what diffusers tells it by itself.
    cfg = ["sampler=ddim", "guidance=cfg", "guidance.scale=3"]
    settings: dict[str, Any] = {"true_cfg_scale": 3.0, "negative_prompt": ["noise"] * 3}
    for folder, made in ((dev, pipeline), (schnell, pipelines_made.flux(schnell, distilled=False))):
        draw = by_command_line(folder, pictures, cfg, tmp_path)
        assert distance(draw(noise, "noise"), flux_latents(made, noise, **settings)) < 1e-3, folder
    draw = by_command_line(schnell, pictures, ["sampler=ddim"], tmp_path)
    assert distance(draw(noise), flux_latents(made, noise)) < 1e-3


def words_of(folder: Path, pictures: Path) -> list[str]:
    return [
        f"pretrained={folder}",
        "dataset=images",
        f"dataset.path={pictures}",
        "dataset.size=16",
        "sampler=ddim",
        f"sampler.nfe={STEPS}",
        "guidance=cfg",
        "guidance.scale=3",
        "evaluation.samples=8",
        "trainer.progress=false",
    ]


@pytest.mark.slow
def test_a_sweep_of_a_pipeline_trains_nothing_and_its_autoencoder_serves_a_training(
    pictures: Path, tmp_path: Path
) -> None:
    need_module("transformers")
    folder = tmp_path / "sd"
    pipelines_made.stable_diffusion(folder)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    sweep = [word for word in words_of(folder, pictures) if not word.startswith(("sampler", "guidance.scale"))]
    sweep += ["-m", "prompts=prompts.txt", "sampler=ddim,dpmpp_2m", "guidance.scale=1.5,3", "sampler.nfe=4"]
    data = [word for word in sweep if word.startswith(("dataset", "evaluation", "trainer"))]
    training = [f"autoencoder.network.folder={folder}", "training.steps=2", "training.warmup=0", "backbone.width=8"]
    for words in (sweep, ["autoencoder=pretrained", *data, *training]):
        arguments = [str(ROOT / "train.py"), *words]
        done = forked_runs.run(arguments, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=400)
        assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    imported = [one for one in found if "imported_from" in one]
    assert len(imported) == 4
    assert len({one["fit"] for one in imported}) == 1
    assert len({one["guidance_strength"] for one in imported}) == 4
    (autoencoder,) = tmp_path.glob("runs/autoencoders/*")
    assert (autoencoder / "latents/index.json").is_file()
    assert len(found) == 5


@pytest.mark.slow
def test_one_command_samples_a_pipeline_and_its_pictures_are_those_of_the_pipeline(
    made: tuple[Path, Any],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, pipeline = made
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    arguments = [str(ROOT / "train.py"), *words_of(folder, pictures), "prompts=prompts.txt"]
    done = forked_runs.run(arguments, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
    assert done.returncode == 0, done.stderr
    (found,) = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    assert found["imported_from"] == str(folder)
    assert found["nfe"] == 2 * STEPS
    # Nothing is trained in its latents: those of the pictures are not written.
    (autoencoder,) = tmp_path.glob("runs/autoencoders/*")
    assert (autoencoder / "done.json").is_file()
    assert not (autoencoder / "latents").exists()
    monkeypatch.chdir(tmp_path)
    assert commands.main(["sample", found["cell"], "-n", "3", "--out", "drawn", "--device", "cpu"]) == 0
    mine = np.load("drawn/samples.npz")["arr_0"].astype(float)
    noise = torch.stack([torch.randn(4, 8, 8, generator=generator(0, "image", number)) for number in range(3)])
    cfg = composed(folder, *words_of(folder, pictures)[1:], f"paths.runs={tmp_path / 'runs'}")
    schedule = make(cfg, "schedule")
    with torch.no_grad():
        theirs = pipeline(
            PROMPTS,
            guidance_scale=3.0,
            num_inference_steps=STEPS,
            latents=noise * schedule.level(1.0).sigma,
            output_type="np",
        ).images
    # They are rounded once.
    assert np.abs(mine - 255 * theirs).max() <= 0.6
    assert np.abs(mine[0] - mine[2]).mean() > 5


@pytest.mark.slow
def test_a_sweep_of_flux_draws_the_pictures_of_its_pipeline(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need_module("transformers")
    folder = tmp_path / "flux"
    pipeline = pipelines_made.flux(folder)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = [word for word in words_of(folder, pictures) if not word.startswith(("sampler=", "guidance"))]
    sweep = ["-m", "sampler=ddim,heun", "guidance.scale=1.5,6", "prompts=prompts.txt"]
    arguments = [str(ROOT / "train.py"), *words, *sweep]
    done = forked_runs.run(arguments, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=400)
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in tmp_path.glob("runs/fits/*/cells/*/result.json")]
    assert len(found) == 4
    assert {one["guidance"] for one in found} == {"distilled"}
    (cell,) = [one["cell"] for one in found if "guidance.scale=6" in one["overrides"] and one["sampler"] == "ddim"]
    (nfe,) = {one["nfe"] for one in found if one["sampler"] == "ddim"}
    assert nfe == STEPS
    monkeypatch.chdir(tmp_path)
    assert commands.main(["sample", cell, "-n", "3", "--out", "drawn", "--device", "cpu"]) == 0
    mine = np.load("drawn/samples.npz")["arr_0"].astype(float)
    noise = torch.stack([torch.randn(16, 8, 8, generator=generator(0, "image", number)) for number in range(3)])
    theirs = flux_latents(pipeline, noise, guidance_scale=6.0, output_type="np").numpy()
    assert np.abs(mine - 255 * theirs).max() <= 0.6


def test_refusals_are_one_line(pictures: Path, tmp_path: Path) -> None:
    need_module("transformers")
    whole = tmp_path / "sd"
    pipelines_made.stable_diffusion(whole)
    for place, part in (("no_tokenizer", "tokenizer"), ("no_encoder", "text_encoder")):
        shutil.copytree(whole, tmp_path / place)
        shutil.rmtree(tmp_path / place / part)
    narrow = tmp_path / "narrow"
    shutil.copytree(whole, narrow)
    config = json.loads((narrow / "text_encoder/config.json").read_text())
    (narrow / "text_encoder/config.json").write_text(json.dumps(config | {"hidden_size": 32}))
    for folder, words, line in (
        (tmp_path / "no_tokenizer", [], "no_tokenizer has no text_encoder and tokenizer"),
        (tmp_path / "no_encoder", [], "no_encoder has no text_encoder and tokenizer"),
        (narrow, [], "its tokens have 32 numbers, and the network takes 16"),
        (whole, ["guidance=distilled"], "this one was not distilled from guidance: choose guidance=cfg, or none"),
        (whole, ["condition=edges"], "condition=edges: this network was trained elsewhere, and is told a text"),
    ):
        arguments = [str(ROOT / "train.py"), *words_of(folder, pictures), *words]
        done = forked_runs.run(arguments, tmp_path, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300)
        assert done.returncode == 2, (folder.name, words, done.stderr)
        assert line in done.stderr.strip().splitlines()[-1], (folder.name, words, done.stderr)
        assert "Traceback" not in done.stderr
