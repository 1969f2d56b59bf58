"""Given pictures that samples start from, or keep a part of: image-to-image, and inpainting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diffsweep.diffusion import Denoise, Sampler
from diffsweep.diffusion.guidance.inpaint import Inpaint
from diffsweep.diffusion.level import Level
from diffsweep.diffusion.partial import noised, starting_from

Encode = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Editing:
    """What is done with given pictures; sample i is made of picture i, from the first again after the last.

    Attributes:
        start: Pictures that samples start from, as stored, (M, ...); None for noise.
        strength: Share of the sampler's steps that are taken from there, in (0, 1].
        known: Pictures of which a part is kept, as stored, (M, ...); None for none.
        repainted: bool (height, width), where those are not kept.
    """

    start: Tensor | None = None
    strength: float = 0.6
    known: Tensor | None = None
    repainted: Tensor | None = None

    def sampler(self, sampler: Sampler) -> Sampler:
        """The sampler that makes samples of the pictures. Raises ValueError for a bad strength."""
        return sampler if self.start is None else starting_from(sampler, self.strength)

    def begin(self, noise: Tensor, numbers: Tensor, levels: list[Level], encode: Encode) -> Tensor:
        """What that sampler is given for the samples of these numbers, (N,).

        Args:
            noise: Of the samples, (N, ...).
            numbers: Of the samples, int64.
            levels: That the sampler visits.
            encode: From stored data to what the network sees.
        """
        if self.start is None:
            return noise
        return noised(_of(self.start, numbers, encode, noise), noise, levels)

    def denoise(self, denoise: Denoise, numbers: Tensor, like: Tensor, encode: Encode) -> Denoise:
        """The denoiser that keeps what is known; arguments as of `begin`, and a tensor on the device of the samples."""
        if self.known is None or self.repainted is None:
            return denoise
        sizes = like.shape[2:]
        share = F.interpolate(self.repainted[None, None].float(), size=sizes, mode="area")[0, 0]
        # A position of a latent that sees any repainted pixel is repainted.
        kept = (share == 0).to(like.device)
        return Inpaint(denoise, _of(self.known, numbers, encode, like), kept)

    def restored(self, samples: Tensor, numbers: Tensor) -> Tensor:
        """Samples as stored, with the known pixels in their places, which an autoencoder does not keep exactly."""
        if self.known is None or self.repainted is None:
            return samples
        known = self.known[numbers.cpu() % len(self.known)].to(samples)
        return torch.where(self.repainted.to(samples.device), samples, known)


def _of(pictures: Tensor, numbers: Tensor, encode: Encode, like: Tensor) -> Tensor:
    """Those of the samples of these numbers, as the network sees them."""
    chosen = pictures[numbers.cpu() % len(pictures)].to(like.device)
    with torch.no_grad():
        return encode(chosen).to(like)
