"""The kinds of data: what is stored, what a network sees, how an example looks."""

from __future__ import annotations

import re

import pytest
import torch

from diffsweep.data.modality import IMAGES, LATENTS, POINTS, VIDEOS, Modality, cut_frames, sounds


def test_quantisation_is_exact_once_and_never_wraps() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    assert IMAGES.encode(every).aminmax() == (-1, 1)
    assert torch.equal(IMAGES.decode(IMAGES.encode(every)), every)
    step = 1 / 127.5
    assert IMAGES.decode(torch.tensor([-9.0, -1.02, -1 + 0.51 * step, 1.02, 9.0])).tolist() == [0, 0, 1, 255, 255]
    points = torch.randn(5, 2)
    assert torch.equal(POINTS.decode(POINTS.encode(points)), points)

    heard = torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16)
    modality = sounds(8000)
    assert torch.equal(modality.decode(modality.encode(heard)), heard)
    assert modality.encode(heard)[32768] == 0
    assert modality.decode(torch.tensor([-2.0, 0.4 / 32768, 1.0])).tolist() == [-32768, 0, 32767]


@pytest.mark.parametrize("modality", [IMAGES, POINTS, VIDEOS, LATENTS, sounds(8000)], ids=lambda one: one.name)
def test_broken_values_are_counted_and_refused(modality: Modality) -> None:
    x = torch.zeros(10)
    x[3], x[4] = torch.nan, torch.inf
    with pytest.raises(ValueError, match="2 of 10 values"):
        modality.decode(x)


@pytest.mark.parametrize(
    ("modality", "shape", "words"),
    [
        (IMAGES, (8, 8), r"images have the shape (channel, height, width), not (8, 8)"),
        (IMAGES, (2, 8, 8), "images have 1 or 3 or 4 channels, not 2"),
        (VIDEOS, (1, 8, 8), r"videos have the shape (channel, time, height, width), not (1, 8, 8)"),
        (sounds(8000), (3, 100), "sounds have 1 or 2 channels, not 3"),
        (POINTS, (1, 8, 8), r"points have the shape (coordinate), not (1, 8, 8)"),
    ],
)
def test_a_kind_refuses_shapes_that_it_cannot_have(modality: Modality, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        modality.check(shape)


def test_a_video_is_shown_as_its_frames_side_by_side() -> None:
    x = torch.randint(0, 256, (2, 3, 4, 5, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert VIDEOS.picture is not None
    strip = VIDEOS.picture(x)
    assert strip.shape == (2, 3, 5, 4 * 7 - 1)
    assert strip[..., 6::7].eq(128).all()
    assert torch.equal(cut_frames(strip, VIDEOS.frames((3, 4, 5, 6))), x.transpose(1, 2))


def test_opacity_lets_white_through() -> None:
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    opacity = torch.tensor([0, 128, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert IMAGES.picture is not None
    shown = IMAGES.picture(torch.cat([red, opacity], 1))
    assert shown[0, :, 0].T.tolist() == [[255, 255, 255], [255, 127, 127], [255, 0, 0]]


def test_a_tone_is_a_bright_row_of_its_spectrogram() -> None:
    modality = sounds(6400)
    assert modality.picture is not None
    time = torch.arange(6400) / 6400
    tones = torch.stack([(0.5 * torch.sin(2 * torch.pi * f * time)) for f in (800, 1600)])[:, None]
    pictures = modality.picture(modality.decode(tones))
    assert pictures.shape[:3] == (2, 3, 64)
    # 64 bands up to 3,200 Hz, the lowest at the bottom.
    rows = pictures.float().mean(1).mean(2).argmax(1)
    assert rows.tolist() == [64 - 16, 64 - 32]
    assert modality.picture(torch.zeros(1, 1, 640, dtype=torch.int16)).eq(pictures.min()).float().mean() > 0.3
