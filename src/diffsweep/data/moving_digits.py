"""Videos that every installation has: a handwritten digit that moves in a black square and bounces off its sides.

As Moving MNIST (N. Srivastava et al., "Unsupervised Learning of Video Representations using LSTMs", arXiv 1502.04681),
with one of scikit-learn's 8x8 digits in each video, so that its class is known.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
from torch import Tensor

from diffsweep.data.digits import Digits
from diffsweep.data.examples import Dataset, Examples, Split, fixed
from diffsweep.data.modality import IMAGES, VIDEOS
from diffsweep.mistakes import whole

# Pixels that a digit moves from frame to frame, from and to.
SPEED = (1.0, 2.5)


def _videos(digits: Tensor, frames: int, size: int, stream: torch.Generator) -> Tensor:
    """uint8 (N, 1, frames, size, size) of uint8 digits (N, 8, 8)."""
    count, side = len(digits), digits.shape[-1]
    room = size - side
    place = torch.rand(count, 1, 2, generator=stream, dtype=torch.float64) * room
    angle = torch.rand(count, 1, generator=stream, dtype=torch.float64) * 2 * math.pi
    speed = SPEED[0] + (SPEED[1] - SPEED[0]) * torch.rand(count, 1, generator=stream, dtype=torch.float64)
    velocity = torch.stack([angle.cos(), angle.sin()], dim=2) * speed[..., None]
    way = place + velocity * torch.arange(frames, dtype=torch.float64)[:, None]
    # A path in a straight line, folded where it meets a side.
    folded = (room - (way.remainder(2 * room) - room).abs()) if room else torch.zeros_like(way)
    top, left = folded.round().to(torch.int64).unbind(2)
    x = torch.zeros(count, frames, size, size, dtype=torch.uint8)
    example, frame = torch.arange(count)[:, None, None, None], torch.arange(frames)[None, :, None, None]
    rows = top[..., None, None] + torch.arange(side)[:, None]
    columns = left[..., None, None] + torch.arange(side)
    x[example, frame, rows, columns] = digits[:, None]
    return x[:, None]


@final
class MovingDigits(Dataset):
    """Videos of one moving digit: four of each of the 1,297 training digits, and four of each of the 500 held out.

    Args:
        shape: (1, frames, size, size), at least 2 frames of at least 8 pixels a side.
        classes: 10, nothing else.
        sigma_data: root mean square of the encoded training videos.
        copies: videos of each digit, each on another way, >= 1.
        seed: of the ways, >= 0.

    Raises:
        ValueError: for a bad value.
    """

    name: ClassVar[str] = "moving_digits"
    only_labels = True

    def __init__(
        self,
        shape: tuple[int, ...] = (1, 8, 16, 16),
        classes: int = 10,
        sigma_data: float = 0.964,
        copies: int = 4,
        seed: int = 0,
    ) -> None:
        super().__init__(shape, classes, sigma_data, VIDEOS)
        VIDEOS.check(self.shape)
        channels, frames, height, width = self.shape
        whole("shape[1]", frames, 2)
        whole("shape[2]", height, 8)
        fixed(self.name, "shape", (channels, height, width), (1, height, height))
        fixed(self.name, "classes", self.classes, 10)
        self.copies = whole("copies", copies, 1)
        self.seed = whole("seed", seed, 0)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 1, frames, size, size); see `Dataset.load`."""
        digits = Digits().load(split)
        # Another way for the held-out digits, too.
        stream = torch.Generator().manual_seed(2 * self.seed + (split == "test"))
        repeated = digits.x[:, 0].repeat(self.copies, 1, 1)
        _, frames, size, _ = self.shape
        return Examples(_videos(repeated, frames, size, stream), digits.labels.repeat(self.copies))


@final
class MovingDigitFrames(Dataset):
    """Single frames of these videos as images (1, 16, 16), the first of each: what their classifier is trained on."""

    name: ClassVar[str] = "moving_digit_frames"
    only_labels = True

    def __init__(self) -> None:
        self.videos = MovingDigits(copies=12)
        super().__init__((1, 16, 16), 10, self.videos.sigma_data, IMAGES)

    def load(self, split: Split) -> Examples:
        """The split as uint8 (N, 1, 16, 16); see `Dataset.load`."""
        videos = self.videos.load(split)
        return Examples(videos.x[:, :, 0].contiguous(), videos.labels)
