"""Models that work in latents, written for diffusers: the autoencoder goes with them, and samples are the same."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forked_runs
import pipelines_made
from diffsweep import commands
from diffsweep.random_streams import generator
from prerequisites import need_module
from test_autoencoders import TINY
from test_interop_text import PROMPTS, STEPS, pictures, words_of

__all__ = ["pictures"]

ROOT = Path(__file__).parent.parent
# Two labelled autoencoders and two networks.
KINDS = {
    "kl": ["backbone=unet", "backbone.width=8", "backbone.multipliers=[1]"],
    "vq": ["backbone=dit_tiny", "backbone.width=16", "backbone.heads=2", "backbone.depth=2", "backbone.patch=2"],
}


def train(folder: Path, *words: str) -> dict[str, Any]:
    arguments = [str(ROOT / "train.py"), *words, "trainer.progress=false"]
    done = forked_runs.run(arguments, folder, os.environ | {"OMP_NUM_THREADS": "1"}, timeout=400)
    assert done.returncode == 0, done.stderr
    found = [json.loads(path.read_text()) for path in folder.glob("runs/fits/*/cells/*/result.json")]
    return max(found, key=lambda one: one["created"])


def noise_of(count: int, *shape: int) -> torch.Tensor:
    """That of the first samples."""
    return torch.stack([torch.randn(*shape, generator=generator(0, "image", number)) for number in range(count)])


def drawn(cell: str) -> np.ndarray:
    """The first three samples of a cell, as the command draws them."""
    assert commands.main(["sample", cell, "-n", "3", "--out", f"drawn/{cell}", "--device", "cpu"]) == 0
    return np.load(f"drawn/{cell}/samples.npz")["arr_0"].astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_with_its_autoencoder_becomes_a_pipeline_that_draws_the_same(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left_out = ("autoencoder=", "backbone", "training.steps", "autoencoder.training.steps")
    base = [word for word in TINY if not word.startswith(left_out)]
    steps = ["training.steps=3", "autoencoder.training.steps=5"]
    words = [*base, f"autoencoder={kind}", *KINDS[kind], *steps, "condition=label", "guidance=cfg"]
    result = train(tmp_path, *words)
    monkeypatch.chdir(tmp_path)
    assert commands.main(["export", "last", "model", "--licence", "mit"]) == 0
    assert "model: diffsweep.results.diffusers_pipeline.DenoiserPipeline" in capsys.readouterr().out
    from diffsweep.results.diffusers_pipeline import DenoiserPipeline

    pipeline = DenoiserPipeline.from_pretrained("model")
    pipeline.set_progress_bar_config(disable=True)
    noise = noise_of(3, 4, 4, 4)
    theirs = 255 * pipeline(noise=noise, output_type="np").images
    # Both are rounded once.
    assert np.abs(drawn(result["cell"]) - theirs).max() <= 0.51
    latents = pipeline(noise=noise, output_type="x0").images
    assert latents.shape == (3, 4, 4, 4)
    mine = latents_of(result["cell"], noise)
    assert float((latents - mine).abs().max()) < 1e-5
    # Another program opens the autoencoder by itself.
    network = getattr(need_module("diffusers"), {"kl": "AutoencoderKL", "vq": "VQModel"}[kind])
    assert network.from_pretrained("model", subfolder="vae").config["latent_channels"] == 4


def latents_of(cell: str, noise: torch.Tensor) -> torch.Tensor:
    """What a cell's own parts draw of noise, before it is decoded."""
    from diffsweep import results
    from diffsweep.runs.autoencoder import finished_dataset
    from diffsweep.runs.build import make_guidance
    from diffsweep.runs.instantiate import make, make_conditioners
    from diffsweep.runs.load_fit import finished
    from diffsweep.scoring.sampling import Model, Sampling

    request = results.sample_request(cell, runs=Path("runs"), device="cpu")
    denoiser = finished("runs", request.fit.signature)
    dataset = finished_dataset(request.cfg, "runs")
    model = Model(denoiser, denoiser.schedule, dataset, make_conditioners(request.cfg))
    sampler = make(request.cfg, "sampler")
    sampling = Sampling(model, sampler, request.seed, make_guidance(request.cfg, model, sampler))
    condition = replace(sampling.requests, choice=request.choice)(torch.arange(len(noise)))
    with torch.no_grad():
        return sampler(sampling.guided, noise, schedule=model.schedule, condition=condition)


PIPELINES = {
    "stable_diffusion": ["guidance=cfg", "guidance.scale=3"],
    "stable_diffusion_xl": ["guidance=cfg", "guidance.scale=3"],
    "flux": ["guidance.scale=2.5"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", PIPELINES)
def test_a_pipeline_that_was_imported_is_written_whole(
    kind: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    need_module("transformers")
    diffusers = need_module("diffusers")
    folder = tmp_path / "given"
    getattr(pipelines_made, kind)(folder)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = [word for word in words_of(folder, pictures) if not word.startswith("guidance")]
    result = train(tmp_path, *words, *PIPELINES[kind], "prompts=prompts.txt")
    monkeypatch.chdir(tmp_path)
    assert commands.main(["export", "last", "model"]) == 0
    out = capsys.readouterr().out
    assert "careful" not in out
    # What says how it is asked is what the card says.
    card = Path("model/README.md").read_text()
    assert f"num_inference_steps={STEPS}, guidance_scale=" in card
    pipeline: Any = diffusers.DiffusionPipeline.from_pretrained("model")
    pipeline.set_progress_bar_config(disable=True)
    scale = float(PIPELINES[kind][-1].partition("=")[2])
    settings: dict[str, Any] = {"num_inference_steps": STEPS, "guidance_scale": scale}
    noise = noise_of(3, 16 if kind == "flux" else 4, 8, 8)
    if kind == "flux":
        start = pipeline._pack_latents(noise, 3, 16, 8, 8)
        settings |= {"height": 16, "width": 16}
    else:
        start = noise * float((1 - pipeline.scheduler.alphas_cumprod[-1]) ** 0.5)
    with torch.no_grad():
        theirs = pipeline(PROMPTS, latents=start, output_type="latent", **settings).images
        seen = pipeline(PROMPTS, latents=start, output_type="np", **settings).images
    if kind == "flux":
        theirs = pipeline._unpack_latents(theirs, 16, 16, 2)
    mine = latents_of(result["cell"], noise)
    assert float((mine - theirs).abs().max() / theirs.abs().max()) < 1e-5
    assert np.abs(drawn(result["cell"]) - 255 * seen).max() <= 0.51
    # Language models that have changed are not written as those of the run, and nothing is.
    shutil.rmtree(folder / "text_encoder")
    assert commands.main(["export", "last", "other"]) == 2
    assert "its language models are no longer in" in capsys.readouterr().err
    assert not list(tmp_path.glob("*other*"))
