"""Autoencoders: what they are trained for, the space that they make, and runs in it that are killed at any stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file
from torch import nn

import checkpoints_made
import forked_runs
from diffsweep.autoencoders import perceptual
from diffsweep.autoencoders.autoencoder import Latents
from diffsweep.autoencoders.kl import KL
from diffsweep.autoencoders.latent_shape import latent_shape
from diffsweep.autoencoders.latent_shards import LatentShards, LatentSource
from diffsweep.autoencoders.latent_space import LatentSpace, Scale
from diffsweep.autoencoders.losses import Losses, adaptive_weight, hinge
from diffsweep.autoencoders.pretrained import PretrainedKL
from diffsweep.autoencoders.vq import VQ
from diffsweep.data.examples import Examples
from diffsweep.data.modality import IMAGES
from diffsweep.runs.build import Components
from diffsweep.sweep.store.record import AutoencoderRecord
from diffsweep.sweep.store.signature import autoencoder_signature, cell_signature, fit_signature, resolved
from diffsweep.training.fit_autoencoder import AutoencoderStage, fit_autoencoder

ROOT = Path(__file__).parent.parent
# Real digits, 8 x 8, in latents of 4 x 4.
TINY = [
    "dataset=digits",
    "autoencoder=kl",
    "autoencoder.network.channels=[8,8]",
    "autoencoder.training.steps=40",
    "autoencoder.training.warmup=0",
    "autoencoder.losses.adversarial=0.5",
    "autoencoder.losses.adversarial_start=20",
    "autoencoder.discriminator.layers=1",
    "autoencoder.discriminator.width=8",
    "backbone.width=8",
    "backbone.multipliers=[1]",
    "training.steps=40",
    "training.warmup=0",
    "evaluation.samples=32",
    "sampler=ddim",
    "sampler.nfe=4",
    "trainer.threads=1",
    "trainer.log_every=10",
    "metric=frechet",
]
PATIENCE = 400


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def space(batch_size: int = 64) -> LatentSpace:
    torch.manual_seed(0)
    found = LatentSpace(KL((1, 8, 8), channels=(8, 8)), IMAGES, batch_size)
    found.scale = Scale(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.5, 1.0, 2.0, 4.0]))
    return found


IMAGES_8 = torch.randint(0, 256, (6, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_latents_are_scaled_once_on_the_way_in_and_once_on_the_way_out() -> None:
    found = space()
    raw = found.latents(IMAGES_8)
    seen = found.encode(IMAGES_8)
    assert torch.allclose(seen[:, 3], (raw.value[:, 3] - 4) / 4)
    assert torch.allclose(found.scale.denormalise(seen).value, raw.value, atol=1e-6)
    assert torch.equal(found.decode(seen), found.reconstructed(IMAGES_8))


def test_the_size_of_batches_changes_no_image() -> None:
    assert (space(1).reconstructed(IMAGES_8).int() - space(64).reconstructed(IMAGES_8).int()).abs().max() <= 1


@pytest.mark.parametrize("kind", [KL, VQ])
def test_networks_have_the_shapes_that_they_state(kind: type[KL] | type[VQ]) -> None:
    made = kind((3, 16, 24), latent_channels=2, channels=(8, 8, 8))
    x, noise = torch.randn(2, 3, 16, 24), torch.randn(2, *made.latent_shape)
    assert made.latent_shape == (2, 4, 6)
    assert made.encode(x).value.shape == made.prior(noise).value.shape == noise.shape
    assert made.decode(Latents(noise)).shape == made.reconstruct(x, noise).x.shape == x.shape
    assert made.reconstruct(x, noise).regularization >= 0


def test_the_divergence_is_that_of_a_gaussian() -> None:
    """Against torch's own, in nats a pixel value."""
    made = KL((1, 8, 8), channels=(8, 8))
    x = torch.randn(3, 1, 8, 8)
    posterior = made.network.encode(x).latent_dist
    normal = torch.distributions.Normal(posterior.mean, posterior.std)
    exact = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0.0, 1.0))
    found = made.reconstruct(x, torch.zeros(3, *made.latent_shape)).regularization.detach()
    assert float(found) == pytest.approx(float(exact.detach().sum() / x.numel()), rel=1e-4)


def test_images_that_cannot_be_halved_so_often_are_refused() -> None:
    assert latent_shape((3, 64, 32), 4, (8, 8, 8)) == (4, 16, 8)
    with pytest.raises(ValueError, match=r"channels=\[8, 8, 8\] halve an image 2 times, and 30 x 32 is no multiple"):
        latent_shape((3, 30, 32), 4, (8, 8, 8))


def test_an_adversarial_loss_is_weighed_to_pull_as_hard_as_the_likeness() -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    # Gradients of norm 5 and 20.
    found = adaptive_weight(
        (weight * torch.tensor([3.0, 4.0])).sum(), (weight * torch.tensor([12.0, 16.0])).sum(), weight
    )
    assert float(found) == pytest.approx(0.25, rel=1e-5)
    assert float(hinge(torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0]))) == pytest.approx((0.25 + 0.5) / 2)


def made(folder: Path, *overrides: str) -> tuple[AutoencoderStage, AutoencoderRecord]:
    """An autoencoder that was made in this process."""
    cfg = composed(*TINY, f"paths.runs={folder}", "trainer.progress=false", *overrides)
    stage = Components.of(cfg).autoencoder
    record = AutoencoderRecord.named(autoencoder_signature(cfg), folder)
    assert stage is not None
    assert record is not None
    record.write_config(cfg)
    return stage, record


def rows(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock decides."""
    text = (folder / "metrics.jsonl").read_text()
    return [
        {key: value for key, value in json.loads(line).items() if key != "images_per_second"}
        for line in text.splitlines()
    ]


@pytest.mark.parametrize(("start", "trained"), [(20, True), (40, False)])
def test_the_discriminator_is_trained_from_its_first_step_on(start: int, trained: bool, tmp_path: Path) -> None:
    stage, record = made(tmp_path, f"autoencoder.losses.adversarial_start={start}")
    assert stage.fitting is not None
    opponent = stage.fitting.discriminator
    assert opponent is not None
    before = {name: value.clone() for name, value in opponent.state_dict().items()}
    fit_autoencoder(stage, record)
    moved = [name for name, value in opponent.state_dict().items() if not torch.equal(value, before[name])]
    assert (sorted(moved) == sorted(before)) if trained else not moved
    steps = [row["step"] for row in rows(record.folder) if "discriminator" in row]
    assert steps == ([29, 39] if trained else [])
    # One step of the training is one of the autoencoder, however many optimizers there are.
    assert (record.result() or {})["steps"] == 40


def test_an_autoencoder_learns_and_is_measured_beside_the_floor(tmp_path: Path) -> None:
    settings = ["autoencoder.training.steps=200", "autoencoder.losses.adversarial=0", "evaluation.samples=200"]
    stage, record = made(tmp_path, *settings)
    fit_autoencoder(stage, record)
    done = record.result() or {}
    losses = [row["loss"] for row in rows(record.folder) if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert 0 < done["fd_digits_floor"] < done["fd_digits"]
    dataset = stage.dataset
    held_out = dataset.load("test")
    x = held_out.take(torch.arange(len(held_out))).x
    errors = (dataset.space.reconstructed(x).float() - x.float()).square().mean(dim=(1, 2, 3))
    psnr = 10 * torch.log10(255**2 / errors)
    # Of 200 of 500 images.
    assert done["psnr"] == pytest.approx(float(psnr.mean()), abs=0.5)
    assert record.pictures_file.read_bytes()[:4] == b"\x89PNG"
    shards = LatentShards.read(record.latents)
    assert shards is not None
    train = dataset.load("train")
    source = LatentSource(shards, train)
    every = source.take(torch.arange(len(source))).x
    assert torch.allclose(every.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(every.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-2)
    some = torch.tensor([7, 3, 7])
    assert torch.allclose(source.take(some).x, dataset.encode(train.take(some).x), atol=1e-4)
    assert torch.equal(source.take(some).labels, train.labels[some])
    with pytest.raises(ValueError, match="other images"):
        LatentSource(shards, Examples(train.take(torch.arange(len(train))).x.flip(0)))


def test_latents_are_written_shard_by_shard_and_none_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsweep.autoencoders.latent_shards._BYTES", 4 * 64 * 2)
    found, images = space(), Examples(IMAGES_8)
    whole = LatentShards.write(tmp_path / "whole", found, images, torch.device("cpu"), lambda count: None)
    assert whole.counts == (2, 2, 2)

    class Killed(Exception):
        pass

    calls: list[int] = []

    def advance(count: int) -> None:
        calls.append(count)
        if len(calls) == 2:
            raise Killed

    with pytest.raises(Killed):
        LatentShards.write(tmp_path / "again", found, images, torch.device("cpu"), advance)
    assert LatentShards.read(tmp_path / "again") is None
    first = (tmp_path / "again" / "shard-00000.npy").stat().st_mtime_ns
    LatentShards.write(tmp_path / "again", found, images, torch.device("cpu"), lambda count: None)
    assert (tmp_path / "again" / "shard-00000.npy").stat().st_mtime_ns == first
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_what_shapes_an_autoencoder_names_it() -> None:
    cfg = composed(*TINY)
    for same in ("seed=1", "sampler=heun", "schedule=linear", "training.steps=3", "autoencoder.batch_size=3"):
        assert autoencoder_signature(composed(*TINY, same)) == autoencoder_signature(cfg), same
    assert fit_signature(composed(*TINY, "autoencoder.batch_size=3")) == fit_signature(cfg)
    for other in (
        "autoencoder.seed=1",
        "autoencoder.training.steps=41",
        "autoencoder=vq",
        "trainer.precision=bf16-mixed",
    ):
        changed = composed(*TINY, other)
        assert autoencoder_signature(changed) != autoencoder_signature(cfg), other
        assert fit_signature(changed) != fit_signature(cfg), other
    plain = composed("stage=fit", "dataset=digits")
    assert autoencoder_signature(plain) is None
    without = {key: value for key, value in resolved(plain).items() if key not in ("autoencoder", "stage", "hydra")}
    assert (fit_signature(without), cell_signature(without)) == (fit_signature(plain), cell_signature(plain))


def test_networks_and_processes_see_latents_of_unit_variance() -> None:
    cfg = composed("autoencoder=kl", "dataset=fashion_mnist", "diffuser=edm", "schedule=shifted")
    assert list(cfg.backbone.shape) == [4, 7, 7]
    assert cfg.diffuser.target.sigma_data == 1.0
    assert cfg.schedule.size == 7
    pixels = composed("dataset=fashion_mnist", "diffuser=edm", "schedule=shifted")
    assert (list(pixels.backbone.shape), pixels.schedule.size) == ([1, 28, 28], 28)
    assert pixels.diffuser.target.sigma_data == pixels.dataset.sigma_data


REFUSED = {
    "training.flip=true": "training.flip=true mirrors images, and latents are written once",
    "autoencoder.training.steps=0": "autoencoder.training.steps=0 must be a whole number, 1 or more",
    "autoencoder.losses.adversarial=-1": "autoencoder.losses.adversarial=-1 must be 0 or more",
    "autoencoder.ema.decay=1": "autoencoder.ema.decay=1 must be at least 0 and below 1",
    "autoencoder.discriminator.layers=3": "autoencoder.discriminator does not take images (1, 8, 8)",
    "autoencoder.batch_size=0": "autoencoder.batch_size=0 must be a whole number, 1 or more",
    "autoencoder.latent_shape=[4,2,2]": "autoencoder.latent_shape=[4, 2, 2] must be [4, 4, 4]",
    "condition=edges": "condition=edges has the size of the images, and this model works in latents",
    "autoencoder.optimizer.lr=-1": "autoencoder.optimizer lr=-1",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_makes_no_autoencoder_is_refused_in_one_line(override: str) -> None:
    with pytest.raises(ValueError) as raised:
        Components.of(composed(*TINY, override))
    assert str(raised.value).startswith(REFUSED[override])
    assert "\n" not in str(raised.value)


def test_a_perceptual_loss_without_its_weights_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'diffsweep\[perceptual\]'"):
        Losses(perceptual=0.1)


def test_the_perceptual_distance_grows_with_noise_and_is_nothing_between_equals() -> None:
    pytest.importorskip("stlpips_pytorch", reason="its weights are not installed")
    distance = perceptual.PerceptualDistance()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 32, 32, generator=generator) * 2 - 1
    noise = torch.randn(x.shape, generator=generator)
    found = [float(distance(x, (x + level * noise).clamp(-1, 1)).mean()) for level in (0.0, 0.1, 0.4)]
    assert found[0] == 0
    assert 0 < found[1] < found[2]


def test_a_folder_of_diffusers_is_taken_with_its_scale() -> None:
    from diffusers import AutoencoderKL  # pyright: ignore[reportPrivateImportUsage]

    folder = checkpoints_made.autoencoder_kl()
    cfg = composed("dataset=digits", "autoencoder=pretrained", f"autoencoder.network.folder={folder}")
    stage = Components.of(cfg).autoencoder
    assert stage is not None
    assert stage.fitting is None
    assert stage.given is not None
    network = stage.dataset.space.autoencoder
    assert isinstance(network, PretrainedKL)
    network.load_state_dict(dict(stage.given()))
    scale = network.given_scale
    assert scale is not None
    theirs: Any = AutoencoderKL.from_pretrained(folder)
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        expected = (theirs.encode(x).latent_dist.mean - 0.25) * 0.5
        found = scale.normalise(network.encode(x))
        assert torch.allclose(found, expected, atol=1e-6)
        assert torch.allclose(
            network.decode(scale.denormalise(found)), theirs.decode(expected / 0.5 + 0.25).sample, atol=1e-5
        )


def start(runs: Path, *overrides: str) -> forked_runs.Run:
    words = [str(ROOT / "train.py"), *TINY, f"paths.runs={runs}", *overrides]
    return forked_runs.Run(words, Path.cwd(), {**os.environ, "OMP_NUM_THREADS": "1"})


def run(runs: Path, *overrides: str) -> str:
    process = start(runs, *overrides)
    _, errors = process.communicate(PATIENCE)
    assert process.returncode == 0, errors
    return errors


def one(runs: Path, pattern: str) -> Path:
    found = sorted(runs.glob(pattern))
    assert len(found) == 1, found
    return found[0]


def files(runs: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was killed."""
    patterns = ("autoencoders/*/checkpoints/*", "autoencoders/*/latents/*", "autoencoders/*/pictures.png")
    patterns = (*patterns, "fits/*/checkpoints/*", "fits/*/cells/*/samples.png")
    found = [path for pattern in patterns for path in runs.glob(pattern)]
    # Half a file that a killed process has left has a name of its own.
    return {str(path.relative_to(runs)): path.read_bytes() for path in found if path.name[0] != "."}


@pytest.mark.slow
def test_killed_in_every_stage_a_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    settings = ["trainer.checkpoint_seconds=0.01"]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    run(undisturbed, *settings)

    def kill_when(true: Callable[[], object]) -> None:
        process = start(killed, *settings)
        while not true():
            assert process.poll() is None, process.communicate()
        process.kill()
        process.communicate()

    def stamp(pattern: str) -> list[int]:
        return [path.stat().st_mtime_ns for path in killed.glob(pattern)]

    for pattern in ("autoencoders/*/checkpoints/last.ckpt", "autoencoders/*/checkpoints/last.ckpt"):
        before = stamp(pattern)
        kill_when(lambda pattern=pattern, before=before: stamp(pattern) not in (before, []))
        assert not list(killed.glob("autoencoders/*/checkpoints/ema.safetensors"))
    kill_when(lambda: stamp("autoencoders/*/latents/shard-00000.npy"))
    assert not list(killed.glob("autoencoders/*/done.json"))
    kill_when(lambda: stamp("fits/*/checkpoints/last.ckpt"))
    assert not list(killed.glob("fits/*/done.json"))
    kill_when(lambda: stamp("fits/*/cells/*/config.yaml"))
    run(killed, *settings)
    assert files(killed) == files(undisturbed)
    for folder in ("autoencoders/*", "fits/*"):
        assert rows(one(killed, folder)) == rows(one(undisturbed, folder))
    results = [json.loads(one(runs, "fits/*/cells/*/result.json").read_text()) for runs in (killed, undisturbed)]
    assert results[0]["fd_digits"] == results[1]["fd_digits"]
    done = json.loads(one(killed, "autoencoders/*/done.json").read_text())
    assert results[0]["fd_digits_reconstruction"] == done["fd_digits"]
    assert results[0]["autoencoder"] == one(killed, "autoencoders/*").name

    # Another seed of the fit has the same autoencoder.
    trained = one(killed, "autoencoders/*/done.json").stat().st_mtime_ns
    run(killed, *settings, "seed=1")
    assert len(list(killed.glob("fits/*/done.json"))) == 2
    assert one(killed, "autoencoders/*/done.json").stat().st_mtime_ns == trained


@pytest.mark.slow
def test_an_autoencoder_is_trained_alone_and_a_given_one_not_at_all(tmp_path: Path) -> None:
    run(tmp_path, "stage=autoencoder", "autoencoder=vq")
    assert one(tmp_path, "autoencoders/*/done.json")
    assert not (tmp_path / "fits").exists()
    weights = load_file(one(tmp_path, "autoencoders/*/checkpoints/ema.safetensors"))
    assert "network.quantize.embedding.weight" in weights
    given = tmp_path / "given"
    words = [
        "dataset=digits",
        "autoencoder=pretrained",
        f"autoencoder.network.folder={checkpoints_made.autoencoder_kl()}",
    ]
    rest = [word for word in TINY if not word.startswith(("autoencoder", "dataset="))]
    process = forked_runs.Run(
        [str(ROOT / "train.py"), *words, *rest, f"paths.runs={given}"],
        Path.cwd(),
        {**os.environ, "OMP_NUM_THREADS": "1"},
    )
    _, errors = process.communicate(PATIENCE)
    assert process.returncode == 0, errors
    done = json.loads(one(given, "autoencoders/*/done.json").read_text())
    assert done["steps"] is None
    result = json.loads(one(given, "fits/*/cells/*/result.json").read_text())
    assert result["fd_digits_reconstruction"] == done["fd_digits"]
    index = json.loads(one(given, "autoencoders/*/latents/index.json").read_text())
    assert index["mean"] == [0.25] * 3
    assert index["std"] == [2.0] * 3


@pytest.mark.slow
def test_a_run_without_an_autoencoder_has_no_such_stage(tmp_path: Path) -> None:
    words = [str(ROOT / "train.py"), "stage=autoencoder", f"paths.runs={tmp_path}"]
    process = forked_runs.Run(words, Path.cwd(), dict(os.environ))
    _, errors = process.communicate(PATIENCE)
    assert process.returncode == 2
    assert "stage=autoencoder, and this run has none: choose autoencoder=kl, vq or pretrained" in errors
