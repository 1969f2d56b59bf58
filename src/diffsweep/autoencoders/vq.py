"""An autoencoder whose latents are entries of a learned codebook: VQModel of diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffsweep.autoencoders.autoencoder import Autoencoder, Latents, Reconstruction
from diffsweep.autoencoders.latent_shape import latent_shape
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
        whole("latent_channels", latent_channels, 1)
        whole("entries", entries, 2)
        whole("layers", layers, 1)
        super().__init__(shape, latent_shape(shape, latent_channels, channels))
        try:
            from diffusers import VQModel  # pyright: ignore[reportPrivateImportUsage]
        except ImportError as error:
            raise ValueError("autoencoder=vq needs diffusers: pip install 'diffsweep[diffusers]'") from error
        levels = len(channels)
        self.network: Any = VQModel(
            in_channels=self.shape[0],
            out_channels=self.shape[0],
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            latent_channels=latent_channels,
            num_vq_embeddings=entries,
            norm_num_groups=groups,
            sample_size=self.shape[-1],
            scaling_factor=1.0,
            mid_block_add_attention=attention,
        )

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

    @property
    def last_layer(self) -> nn.Parameter:
        """See `Autoencoder.last_layer`."""
        return self.network.decoder.conv_out.weight
