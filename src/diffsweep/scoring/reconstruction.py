"""What an autoencoder keeps of images: measured, and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffsweep.autoencoders.latent_dataset import LatentDataset
from diffsweep.autoencoders.perceptual import PerceptualDistance, perceptual_installed
from diffsweep.evaluation import pictures
from diffsweep.evaluation.evaluate import Evaluation
from diffsweep.random_streams import generator
from diffsweep.scoring.measure import Baseline
from diffsweep.settings import EvaluationSettings

# Images in pictures.png.
_SHOWN = 24

# The window of the structural similarity, which smaller images do not hold.
_WINDOW = 11


def measure_reconstruction(
    dataset: LatentDataset,
    evaluation: Evaluation,
    settings: EvaluationSettings,
    device: torch.device,
    *,
    show: bool = True,
) -> dict[str, float | str | int | None]:
    """Numbers of held-out images after both ways, by their keys in done.json.

    `psnr` in dB, `ssim` in [0, 1], `perceptual` if its weights are installed: means over images. Each number NAME of
    the evaluation, as the Frechet distance, is that of the reconstructions, and NAME_floor that of the same images.

    Args:
        dataset: In the latents of a finished autoencoder.
        evaluation: What is measured.
        settings: Of how many images.
        device: Where.
        show: Whether to draw bars when standard error is a terminal.
    """
    held_out, space = dataset.load("test"), dataset.space
    found: dict[str, float | str | int | None] = {"extractor": evaluation.extractor.space}
    if len(held_out) < 2:
        return found
    order = torch.randperm(len(held_out), generator=generator(settings.seed, "reconstruction", 0))
    sums: dict[str, float] = {}
    perceptual = PerceptualDistance().to(device) if perceptual_installed() else None
    chosen = order[: settings.samples]
    space.autoencoder.to(device)
    for numbers in chosen.split(settings.batch_size):
        x = held_out.take(numbers).x.to(device)
        again = space.reconstructed(x)
        for name, values in _similarities(dataset, x, again, perceptual).items():
            sums[name] = sums.get(name, 0.0) + float(values.sum())
    found |= {name: total / len(chosen) for name, total in sums.items()}
    real = Baseline.of(dataset, evaluation, settings, show=show)
    found |= dict(real.reconstruction) | {f"{name}_floor": value for name, value in real.floor.items()}
    return found | {"reconstructed_images": len(chosen)}


def _similarities(
    dataset: LatentDataset, x: Tensor, again: Tensor, perceptual: PerceptualDistance | None
) -> dict[str, Tensor]:
    """One number for each image, by name."""
    # With it all of torchmetrics is imported, which takes two seconds.
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    first, second = again.float(), x.float()
    axes = (1, 2, 3)
    numbers: dict[str, Any] = {
        "psnr": peak_signal_noise_ratio(first, second, data_range=255.0, reduction="none", dim=axes).clamp(max=100)
    }
    if min(x.shape[-2:]) >= _WINDOW:
        numbers["ssim"] = structural_similarity_index_measure(first, second, data_range=255.0, reduction="none")
    if perceptual is not None:
        with torch.no_grad():
            numbers["perceptual"] = perceptual(dataset.inner.encode(x), dataset.inner.encode(again))
    return numbers


def draw_reconstructions(dataset: LatentDataset, device: torch.device, path: Path) -> None:
    """Write a PNG in which held-out images lie above their reconstructions, and those above images of the prior."""
    held_out, space = dataset.load("test"), dataset.space
    space.autoencoder.to(device)
    x = held_out.take(torch.arange(min(_SHOWN, len(held_out)))).x.to(device)
    if not len(x):
        return
    noise = torch.randn((len(x), *space.autoencoder.latent_shape), generator=generator(0, "prior", 0))
    drawn = space.images(space.autoencoder.prior(noise.to(device)))
    picture = dataset.modality.picture
    assert picture is not None
    rows = torch.cat([picture(some) for some in (x, space.reconstructed(x), drawn)], dim=2)
    pictures.grid(rows.cpu(), path)
