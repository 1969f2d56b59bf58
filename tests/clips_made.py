"""Collections of videos and sounds, written anew by tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffsweep.data.wav import wav


def frames(seed: int, count: int = 5, size: int = 8) -> list[Image.Image]:
    """Grey frames of noise."""
    stream = np.random.default_rng(seed)
    return [Image.fromarray(stream.integers(0, 256, (size, size), dtype=np.uint8)) for _ in range(count)]


def write_gif(path: Path, seed: int, count: int = 5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *rest = frames(seed, count)
    first.save(path, save_all=True, append_images=rest, duration=100, loop=0)


def write_wav(path: Path, frequency: float, rate: int = 8000, length: int = 2048, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wave = 0.5 * torch.sin(2 * torch.pi * frequency * torch.arange(length) / rate)
    path.write_bytes(wav((wave * 32767).round().to(torch.int16).expand(channels, -1), rate))


def gif_folder(folder: Path, each: int = 6) -> Path:
    """Videos of two classes."""
    for label in ("a", "b"):
        for i in range(each):
            write_gif(folder / "gifs" / label / f"{i}.gif", 100 * (label == "b") + i)
    return folder / "gifs"


def frame_folder(folder: Path, each: int = 6) -> Path:
    """The same videos as folders of frames."""
    for label in ("a", "b"):
        for i in range(each):
            place = folder / "frames" / label / f"clip{i}"
            place.mkdir(parents=True)
            for number, frame in enumerate(frames(100 * (label == "b") + i)):
                frame.save(place / f"{number}.png")
    return folder / "frames"


def wav_folder(folder: Path, each: int = 6) -> Path:
    """Sounds of two classes."""
    for label, low in (("low", 200), ("high", 800)):
        for i in range(each):
            write_wav(folder / "wavs" / label / f"{i}.wav", low * (1 + 0.03 * i))
    return folder / "wavs"


def own_videos(folder: Path) -> list[str]:
    """What `dataset=video` is told of them."""
    return [f"dataset.path={gif_folder(folder, 20)}", "dataset.size=8", "dataset.frames=4", "dataset.test_share=0.5"]


def own_sounds(folder: Path) -> list[str]:
    """What `dataset=audio` is told of them."""
    words = ["dataset.sample_rate=8000", "dataset.length=2048", "dataset.test_share=0.5"]
    return [f"dataset.path={wav_folder(folder, 20)}", *words]
