"""Sounds that every installation has: struck tones of eight pitches, made of sines, each with its own timbre.

No recordings: a set to try what is for sounds, in seconds.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from diffsweep.data.examples import Dataset, Examples, Split, known_split
from diffsweep.data.modality import sounds
from diffsweep.mistakes import BadValue, whole

# Hertz of the lowest pitch; the next is a whole tone higher, and so on.
LOWEST = 196.0
STEP = 2 ** (2 / 12)

_OVERTONES = 5


@final
class Tones(Dataset):
    """Tones of `classes` pitches, a whole tone apart from 196 Hz on: a label is a pitch.

    A tone has up to five overtones below half the sample rate with random loudness, starts within the first tenth,
    and fades at its own speed; pitch and loudness vary a little. Its largest value is between 0.5 and 1.

    Args:
        shape: (1, samples), at least 256.
        classes: number of pitches, 1 to 12.
        sigma_data: root mean square of the encoded training sounds.
        sample_rate: samples a second, at least 4,000.
        size: number of sounds in each split, >= 2.
        seed: of the sounds, >= 0.

    Raises:
        ValueError: for a bad value.
    """

    name: ClassVar[str] = "tones"
    only_labels = True

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 2048),
        classes: int = 8,
        sigma_data: float = 0.197,
        sample_rate: int = 4000,
        size: int = 4000,
        seed: int = 0,
    ) -> None:
        self.sample_rate = whole("sample_rate", sample_rate, 4000)
        super().__init__(shape, classes, sigma_data, sounds(self.sample_rate))
        if self.shape[0] != 1 or self.shape[1] < 256:
            raise BadValue("shape", list(self.shape), "must be [1, N] with 256 samples or more")
        whole("classes", classes, 1, 12)
        self.size = whole("size", size, 2)
        self.seed = whole("seed", seed, 0)

    def load(self, split: Split) -> Examples:
        """The split as int16 (N, 1, samples); see `Dataset.load`."""
        known_split(split)
        stream = torch.Generator().manual_seed(2 * self.seed + (split == "test"))
        labels = torch.arange(self.size) % self.classes
        return Examples(self._sounds(labels, stream), labels)

    def _sounds(self, labels: Tensor, stream: torch.Generator) -> Tensor:
        def uniform(low: float, high: float, *more: int) -> Tensor:
            return low + (high - low) * torch.rand(len(labels), *more, generator=stream, dtype=torch.float64)

        time = torch.arange(self.shape[1], dtype=torch.float64) / self.sample_rate
        duration = self.shape[1] / self.sample_rate
        start = uniform(0, 0.1)[:, None] * duration
        since = (time - start).clamp(min=0)
        # Half a per cent off pitch at most, with a slow vibrato of as much.
        pitch = LOWEST * STEP ** labels.double() * uniform(0.995, 1.005)
        bend = 0.005 * (2 * math.pi * uniform(4, 7)[:, None] * since).sin() / (2 * math.pi * 5)
        loudness = uniform(0, 1, _OVERTONES) / torch.arange(2, 2 + _OVERTONES)
        decay = uniform(1, 6)[:, None] / duration
        wave = torch.zeros(len(labels), len(time), dtype=torch.float64)
        for number in range(1, 2 + _OVERTONES):
            share = loudness[:, number - 2] if number > 1 else torch.ones(len(labels), dtype=torch.float64)
            heard = share * (number * pitch < 0.45 * self.sample_rate)
            fade = (-decay * since * (1 + 0.3 * number)).exp()
            phase = 2 * math.pi * number * pitch[:, None] * (since + bend)
            wave += heard[:, None] * fade * phase.sin()
        # An attack of 5 ms: a jump would be a click.
        wave *= (since / 0.005).clamp(max=1)
        wave *= uniform(0.5, 1)[:, None] / wave.abs().amax(dim=1, keepdim=True)
        return (wave * 32767).round().to(torch.int16)[:, None]
