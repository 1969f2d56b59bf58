"""An autoencoder whose latents are entries of a learned codebook: VQModel of diffusers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents, Reconstruction
from diffsweep.autoencoders.levels import Levels
from diffsweep.mistakes import whole


class VQ(Autoencoder):
    """Vector quantisation (Neural Discrete Representation Learning, arXiv 1711.00937; 2112.10752, section 3.1).

    A diffusion works on what comes before the codebook, and the decoder looks the nearest entries up.

    Args:
        shape: (channels, height, width) of images.
        latent_channels: of the latents, the length of an entry of the codebook.
        entries: of the codebook.
        channels: of each level, its `block_out_channels`; each but the last halves the image.
        layers: residual layers of each level.
        groups: of each group norm.
        attention: whether the coarsest level attends.

    Raises:
        ValueError: if diffusers is not installed, for a bad setting, or images that cannot be halved so often.
    """

    def __init__(
        self,
        shape: Sequence[int],
        latent_channels: int = 4,
        entries: int = 512,
        channels: Sequence[int] = (32, 64, 64),
        layers: int = 1,
        groups: int = 8,
        attention: bool = True,
    ) -> None:
        whole("entries", entries, 2)
        levels = Levels(latent_channels, channels, layers, groups, attention)
        super().__init__(shape, levels.latent_shape(shape))
        self.network = levels.network("VQModel", self.shape, num_vq_embeddings=entries)

    def encode(self, x: Tensor) -> Latents:
        """What comes before the codebook."""
        return Latents(self.network.encode(x).latents)

    def decode(self, latents: Latents) -> Tensor:
        """Of the nearest entries of the codebook."""
        return self.network.decode(latents.value, return_dict=False)[0]

    def reconstruct(self, x: Tensor, noise: Tensor) -> Reconstruction:
        """Nothing is random; the regularization is the codebook's loss, in units of the latents squared."""
        decoded, loss = self.network.decode(self.encode(x).value, return_dict=False)
        return Reconstruction(decoded, loss.mean())

    def prior(self, noise: Tensor) -> Latents:
        """Entries of the codebook, each as likely as any other, by the noise of the first channel."""
        entries = self.network.quantize.embedding.weight
        share = torch.special.ndtr(noise[:, 0].float())
        numbers = (share * len(entries)).long().clamp(max=len(entries) - 1)
        return Latents(entries[numbers].movedim(-1, 1))
