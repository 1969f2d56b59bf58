"""Files that show samples of any kind: a picture of all of them, and what moves or sounds beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from diffsweep.data.modality import IMAGES, Modality, cut_frames
from diffsweep.data.wav import in_a_row, wav
from diffsweep.evaluation import pictures
from diffsweep.files import write_atomic

# As many samples are shown in a picture, unless they are points.
GRID = 100

# As many points are.
POINTS = 2000

# As many sounds are heard one after the other.
SOUNDS = 16


def draw_grid(modality: Modality, samples: Tensor, path: Path) -> None:
    """Write a PNG of samples, whole or not at all: a picture of each side by side, or points as a cloud.

    Args:
        modality: what they are.
        samples: as stored, (N, ...).
        path: of the PNG; its folder is made.

    Raises:
        ValueError: when there are none, or they cannot be drawn.
    """
    if modality.picture is None:
        pictures.scatter(samples, path)
    else:
        pictures.grid(modality.picture(samples), path, modality.frames(tuple(samples.shape[1:])))


def write_samples(modality: Modality, samples: Tensor, path: Path) -> list[Path]:
    """Write `draw_grid`'s PNG, and beside it under the same name a GIF of what moves, or a WAV of what sounds.

    Returns:
        Paths of what was written beside the PNG.
    """
    draw_grid(modality, samples, path)
    count = modality.frames(tuple(samples.shape[1:]))
    written = []
    if modality.picture is not None and count > 1:
        pictures.video(cut_frames(modality.picture(samples), count), path.with_suffix(".gif"))
        written.append(path.with_suffix(".gif"))
    if modality.sample_rate is not None:
        sound = in_a_row(samples[:SOUNDS], modality.sample_rate)
        write_atomic(path.with_suffix(".wav"), wav(sound, modality.sample_rate))
        written.append(path.with_suffix(".wav"))
    return written


def write_one(modality: Modality, sample: Tensor, path: Path) -> None:
    """Write one sample (as stored) as a file of its own, at its own size: PNG, GIF or WAV, by what it is.

    Args:
        modality: what it is.
        sample: not of points.
        path: of the file, to which the suffix is added.
    """
    if modality.sample_rate is not None:
        write_atomic(path.with_suffix(".wav"), wav(sample, modality.sample_rate))
        return
    assert modality.picture is not None
    count = modality.frames(tuple(sample.shape))
    if count > 1:
        pictures.video(cut_frames(modality.picture(sample[None]), count), path.with_suffix(".gif"), width=1)
        return
    # An image keeps its opacity, which its picture does not.
    shown = sample if modality == IMAGES else modality.picture(sample[None])[0]
    pixels = shown.movedim(0, -1).contiguous().numpy()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(path.with_suffix(".png"))


def draw_steps(modality: Modality, frames: Sequence[tuple[Tensor, Tensor]], path: Path) -> None:
    """Write a GIF of how samples come about: `frames` are (state, aim), each of stored samples; see `draw_grid`."""
    if modality.picture is None:
        pictures.scatter_animation(frames, path)
    else:
        picture = modality.picture
        pictures.animation([(picture(state), picture(aim)) for state, aim in frames], path)
