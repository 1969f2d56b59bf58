"""Sounds by their log-mel spectrograms: the loudness of bands that are as wide as an ear hears them.

The features of a sound are, of each band's loudness in decibels over time, the mean, the standard deviation, and the
root mean square of the change from one window to the next. Their Frechet distance is `fd_mel`: there is no network in
it, and it is not the Frechet audio distance (arXiv 1812.08466), which needs one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.mistakes import BadValue, whole

# Part of the extractor's identity: to be changed together with what `LogMel.forward` computes.
ARCHITECTURE = "log mel, HTK scale, Hann window of 4 bands' widths, hop of a quarter; mean, std, rms change; dB / 10"

# Samples that a sound must have for each band: two windows.
SAMPLES_OF_BAND = 16

# Power that counts as silence: 16 bits have no less.
_SILENCE = 1e-10


class LogMel(nn.Module):
    """Statistics of log-mel spectrograms.

    Args:
        sample_rate: samples a second, >= 1.
        bands: how many, >= 2.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, sample_rate: int, bands: int) -> None:
        super().__init__()
        self.bands = whole("bands", bands, 2)
        whole("sample_rate", sample_rate, 1)
        self.size = SAMPLES_OF_BAND // 2 * bands
        self.register_buffer("window", torch.hann_window(self.size), persistent=False)
        self.register_buffer("filters", _filters(sample_rate, self.size, bands), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3 * bands) of int16 (N, channels, time), of which the channels are averaged.

        Raises:
            ValueError: for what is no sound, or too short a one.
        """
        if x.dtype != torch.int16 or len(x.shape) != 3:
            raise ValueError(f"mel takes sounds int16 (N, channels, time), not {x.dtype} {tuple(x.shape)}")
        if x.shape[2] < 2 * self.size:
            raise ValueError(
                f"mel with {self.bands} bands needs sounds of {2 * self.size} samples or more, not {x.shape[2]}: set "
                "evaluation.extractor.bands lower"
            )
        window: Tensor = self.window  # pyright: ignore[reportAssignmentType]
        filters: Tensor = self.filters  # pyright: ignore[reportAssignmentType]
        mono = x.float().mean(dim=1) / 32768
        found = torch.stft(mono, self.size, self.size // 4, window=window, center=False, return_complex=True)
        power = (found.abs() * 2 / window.sum()).square()
        # Tens of decibels: all features are of about unit size.
        loud = torch.einsum("mf,nft->nmt", filters, power).clamp(min=_SILENCE).log10()
        change = loud.diff(dim=2).square().mean(dim=2).sqrt()
        return torch.cat([loud.mean(dim=2), loud.std(dim=2, correction=0), change], dim=1)


def _filters(sample_rate: int, size: int, bands: int) -> Tensor:
    """Triangles of equal width in mel (HTK: 2595 log10(1 + f / 700)) up to half the rate: (bands, size // 2 + 1)."""

    def mel(frequency: float) -> float:
        return 2595 * math.log10(1 + frequency / 700)

    edges = 700 * (10 ** (torch.linspace(0, mel(sample_rate / 2), bands + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, sample_rate / 2, size // 2 + 1, dtype=torch.float64)
    # A band narrower than a step between frequencies would hear nothing.
    step = frequencies[1]
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rise = (frequencies - low) / torch.maximum(middle - low, step)
    fall = (high - frequencies) / torch.maximum(high - middle, step)
    triangles = torch.minimum(rise, fall).clamp(min=0)
    nearest = (frequencies - middle).abs().argmin(dim=1)
    triangles[torch.arange(bands), nearest] = triangles[torch.arange(bands), nearest].clamp(min=0.5)
    return triangles.float()


def mel(sample_rate: int, bands: int = 32) -> Extractor:
    """The extractor of sounds, whose distance is `fd_mel`.

    Args:
        sample_rate: of the sounds, samples a second.
        bands: of the spectrogram; there are three features of each.

    Raises:
        ValueError: for a value out of range.
    """
    if isinstance(bands, int) and bands > 1024:
        raise BadValue("bands", bands, "is more than an ear can tell apart: at most 1024")
    network = LogMel(sample_rate, bands)
    return Extractor(network, "mel", 3 * bands, sha256(ARCHITECTURE, str(sample_rate), str(bands)))
