"""How a sound looks: its spectrogram, time to the right, frequency upwards, loudness as colour."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

# Pixels of a picture, at most: bands of frequency, and positions in time.
BANDS, TIMES = 64, 128

# What is so many decibels below a full-scale sine is black.
RANGE = 80.0


def spectrogram(x: Tensor) -> Tensor:
    """Pictures of sounds, on one scale for all of them.

    Args:
        x: int16 (N, channels, time); the channels are added.

    Returns:
        uint8 (N, 3, bands, times): bands from 0 at the bottom to half the sample rate at the top.
    """
    mono = x.float().mean(dim=1) / 32768
    # A window of twice the bands has one more row than there are bands, that of no frequency.
    bands = min(BANDS, max(1, mono.shape[1] // 2))
    size = 2 * bands
    hop = max(1, -(-mono.shape[1] // TIMES))
    window = torch.hann_window(size, device=x.device)
    found = torch.stft(mono, size, hop, window=window, center=True, pad_mode="constant", return_complex=True)
    power = (found.abs() * 2 / window.sum()).square()[:, 1:]
    loudness = (10 * power.clamp(min=1e-12).log10() / RANGE + 1).clamp(0, 1)
    shade = (loudness * 255).round().to(torch.int64).flip(1)
    return _colours().to(x.device)[shade].permute(0, 3, 1, 2).contiguous()


@functools.cache
def _colours() -> Tensor:
    """256 colours from black over red to white, uint8 (256, 3), of which the eye sees equal steps as equal."""
    from matplotlib import colormaps

    table = torch.tensor([colormaps["magma"](i)[:3] for i in range(256)])
    return (table * 255).round().to(torch.uint8)
