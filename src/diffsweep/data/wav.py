"""Sounds as WAV files, 16 bits a sample."""

from __future__ import annotations

import io
import wave

import torch
from torch import Tensor

# Seconds of silence between sounds that follow one another.
PAUSE = 0.25


def wav(x: Tensor, sample_rate: int) -> bytes:
    """The content of a WAV file with one sound, int16 (channels, time), as `sample_rate` samples a second."""
    assert x.dtype == torch.int16, x.dtype
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(x.shape[0])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(x.t().contiguous().cpu().numpy().astype("<i2").tobytes())
    return buffer.getvalue()


def in_a_row(x: Tensor, sample_rate: int) -> Tensor:
    """Sounds (N, channels, time) one after the other, with a pause after each: (channels, all of it)."""
    pause = x.new_zeros(*x.shape[:2], round(PAUSE * sample_rate))
    return torch.cat([x, pause], dim=2).transpose(0, 1).flatten(1)
